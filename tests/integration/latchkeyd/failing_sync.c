// Preloaded into the server under test: fsync and fdatasync fail with EIO while the file named by FAILING_SYNC_WHILE exists
// (fault F05). The name is read before main, which clears the environment.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char trigger[512];

__attribute__((constructor)) static void ReadTrigger(void) {
  const char* name = getenv("FAILING_SYNC_WHILE");
  if (name != NULL) strncpy(trigger, name, sizeof trigger - 1);
}

static int Fails(void) {
  return trigger[0] != 0 && access(trigger, F_OK) == 0;
}

int fsync(int fd) {
  if (Fails()) {
    errno = EIO;
    return -1;
  }
  int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
  return real(fd);
}

int fdatasync(int fd) {
  if (Fails()) {
    errno = EIO;
    return -1;
  }
  int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
  return real(fd);
}
