// Holds one file open and tells what each way to read it gives, on that descriptor and on a new one. Built static, for an
// empty container.
//
//   read_ways PATH
//       prints "ready", then for each line on its standard input one line per way, as "read held b 5000 new c 100": the
//       letter that all bytes are, or "mixed", and how many there are; "error NAME" when a call failed. A mapping is looked
//       at from its first byte to the first zero.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <unistd.h>

enum { kMaxBytes = 1 << 16 };  // of a pipe too, so that splice never waits

static char text[kMaxBytes];

static ssize_t ByRead(int fd) {
  ssize_t all = 0, got;
  if (lseek(fd, 0, SEEK_SET) != 0) return -1;
  while ((got = read(fd, text + all, kMaxBytes - (size_t)all)) > 0) all += got;
  return got < 0 ? -1 : all;
}

static ssize_t ByPread(int fd) {
  ssize_t all = 0, got;
  while ((got = pread(fd, text + all, 100, all)) > 0) all += got;  // in pieces, as a parser does
  return got < 0 ? -1 : all;
}

static ssize_t BySendfile(int fd) {
  int copy = memfd_create("copy", 0);
  off_t from = 0;
  ssize_t got;
  while ((got = sendfile(copy, fd, &from, kMaxBytes)) > 0) {
  }
  if (got == 0) got = ByRead(copy);
  close(copy);
  return got;
}

static ssize_t BySplice(int fd) {
  int ends[2];
  loff_t from = 0;
  ssize_t got;
  if (pipe(ends) != 0) return -1;
  while ((got = splice(fd, &from, ends[1], NULL, kMaxBytes, 0)) > 0) {
  }
  close(ends[1]);
  if (got == 0)
    for (ssize_t more; (more = read(ends[0], text + got, kMaxBytes - (size_t)got)) > 0;)
      got += more;
  close(ends[0]);
  return got;
}

static ssize_t ByMap(int fd) {
  const char* map = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
  if (map == MAP_FAILED) return -1;
  size_t size = strnlen(map, 4096);
  memcpy(text, map, size);
  munmap((void*)map, 4096);
  return (ssize_t)size;
}

static void Tell(const char* label, ssize_t size) {
  if (size < 0) {
    printf(" %s error %s", label, strerrorname_np(errno));
    return;
  }
  char letter[2] = {size > 0 ? text[0] : '-', 0};
  for (ssize_t at = 1; at < size; ++at)
    if (text[at] != text[0]) letter[0] = 0;
  printf(" %s %s %zd", label, letter[0] == 0 ? "mixed" : letter, size);
}

int main(int argc, char** argv) {
  static const struct {
    const char* name;
    ssize_t (*way)(int fd);
  } kWays[] = {{"read", ByRead},
               {"pread", ByPread},
               {"sendfile", BySendfile},
               {"splice", BySplice},
               {"map", ByMap}};
  char line[16];
  int held = argc == 2 ? open(argv[1], O_RDONLY) : -1;
  if (held < 0) return 2;
  setlinebuf(stdout);
  puts("ready");
  while (fgets(line, sizeof line, stdin) != NULL)
    for (size_t at = 0; at < sizeof kWays / sizeof kWays[0]; ++at) {
      int fresh = open(argv[1], O_RDONLY);
      fputs(kWays[at].name, stdout);
      Tell("held", kWays[at].way(held));
      Tell("new", kWays[at].way(fresh));
      putchar('\n');
      close(fresh);
    }
  return 0;
}
