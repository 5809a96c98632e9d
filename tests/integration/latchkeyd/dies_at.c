// Preloaded into a command under test: kills it right before the Nth call that changes a directory or makes a change
// durable, N from DIES_AT. What is on the disk then is what a crash at that moment leaves. The number is read before main,
// which clears the environment.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

static int calls_left;

__attribute__((constructor)) static void ReadNumber(void) {
  const char* number = getenv("DIES_AT");
  if (number != NULL) calls_left = atoi(number);
}

static void Count(void) {
  if (calls_left > 0 && --calls_left == 0) kill(getpid(), SIGKILL);
}

#define COUNTED(name, parameters, arguments)                            \
  int name parameters {                                                 \
    Count();                                                            \
    int(*real) parameters = (int(*) parameters)dlsym(RTLD_NEXT, #name); \
    return real arguments;                                              \
  }

COUNTED(link, (const char* from, const char* to), (from, to))
COUNTED(unlink, (const char* path), (path))
COUNTED(rename, (const char* from, const char* to), (from, to))
COUNTED(renameat2, (int a, const char* from, int b, const char* to, unsigned int flags),
        (a, from, b, to, flags))
COUNTED(fsync, (int fd), (fd))
COUNTED(fdatasync, (int fd), (fd))
