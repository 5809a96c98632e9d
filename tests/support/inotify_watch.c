// Watches files or directories with inotify and prints one JSON line per event, with the time of both clocks and what the
// file held when it was read again at once. Built static, so that it runs in an empty container (busybox-static has no
// inotifyd). Watches are added once and never again: a watch that dies is an event that is printed (IGNORED).
//
//   inotify_watch [--count N] [--timeout SECONDS] [--until-digest SHA256] PATH...
//
// First line: {"ready":true}. Then for each event
//   {"event":"CLOSE_WRITE","path":"/secrets/db","realtime_ns":N,"monotonic_ns":N,"bytes":N,"sha256":"...","read_ns":N}
// where read_ns is the monotonic time at which the file had been read to its end. Exit status: 0 after N events or the
// awaited digest, 3 when the time is over.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "sha256.h"

enum { kMaxWatches = 64, kMaxBytes = 9 * 1024 * 1024 };

static const struct {
  uint32_t bit;
  const char* name;
} kEvents[] = {
    {IN_ACCESS, "ACCESS"},           {IN_MODIFY, "MODIFY"},         {IN_ATTRIB, "ATTRIB"},
    {IN_CLOSE_WRITE, "CLOSE_WRITE"}, {IN_MOVED_FROM, "MOVED_FROM"}, {IN_MOVED_TO, "MOVED_TO"},
    {IN_CREATE, "CREATE"},           {IN_DELETE, "DELETE"},         {IN_DELETE_SELF, "DELETE_SELF"},
    {IN_MOVE_SELF, "MOVE_SELF"},     {IN_UNMOUNT, "UNMOUNT"},       {IN_IGNORED, "IGNORED"},
    {IN_Q_OVERFLOW, "Q_OVERFLOW"}};

static long long Now(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (long long)t.tv_sec * 1000000000LL + t.tv_nsec;
}

static unsigned char* content;

// Reads a file to its end; -errno when that fails.
static long ReadFile(const char* path) {
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -errno;
  long total = 0;
  for (;;) {
    const ssize_t n = read(fd, content + total, (size_t)(kMaxBytes - total));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) total = -errno;
    if (n <= 0) break;
    total += n;
  }
  close(fd);
  return total;
}

static void Print(const char* event, const char* path, long long realtime, long long monotonic,
                  int reread, char digest[65]) {
  digest[0] = 0;
  printf("{\"event\":\"%s\",\"path\":\"%s\",\"realtime_ns\":%lld,\"monotonic_ns\":%lld", event,
         path, realtime, monotonic);
  if (reread) {
    const long bytes = ReadFile(path);
    const long long done = Now(CLOCK_MONOTONIC);
    if (bytes >= 0) {
      Sha256Hex(content, (size_t)bytes, digest);
      printf(",\"bytes\":%ld,\"sha256\":\"%s\",\"read_ns\":%lld", bytes, digest, done);
    } else {
      printf(",\"read_error\":\"%s\"", strerror((int)-bytes));
    }
  }
  printf("}\n");
  fflush(stdout);
}

int main(int argc, char** argv) {
  long count = -1;
  double timeout_s = 60;
  const char* until = NULL;
  const char* paths[kMaxWatches];
  int watches[kMaxWatches], directory[kMaxWatches], n = 0;
  for (int i = 1; i < argc; ++i) {
    if (strcmp(argv[i], "--count") == 0 && i + 1 < argc) {
      count = strtol(argv[++i], NULL, 10);
    } else if (strcmp(argv[i], "--timeout") == 0 && i + 1 < argc) {
      timeout_s = strtod(argv[++i], NULL);
    } else if (strcmp(argv[i], "--until-digest") == 0 && i + 1 < argc) {
      until = argv[++i];
    } else if (argv[i][0] != '-' && n < kMaxWatches) {
      paths[n++] = argv[i];
    } else {
      fprintf(stderr, "inotify_watch: cannot use \"%s\"\n", argv[i]);
      return 2;
    }
  }
  if (n == 0) return 2;
  content = malloc(kMaxBytes);
  const int fd = inotify_init1(IN_CLOEXEC);
  if (content == NULL || fd < 0) return 1;
  for (int i = 0; i < n; ++i) {
    struct stat st;
    if (stat(paths[i], &st) != 0) {
      fprintf(stderr, "inotify_watch: %s: %s\n", paths[i], strerror(errno));
      return 1;
    }
    directory[i] = S_ISDIR(st.st_mode);
    watches[i] = inotify_add_watch(fd, paths[i],
                                   IN_MODIFY | IN_ATTRIB | IN_CLOSE_WRITE | IN_MOVE | IN_CREATE |
                                       IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF);
    if (watches[i] < 0) {
      fprintf(stderr, "inotify_watch: %s: %s\n", paths[i], strerror(errno));
      return 1;
    }
  }
  printf("{\"ready\":true,\"realtime_ns\":%lld}\n", Now(CLOCK_REALTIME));
  fflush(stdout);

  const long long end = Now(CLOCK_MONOTONIC) + (long long)(timeout_s * 1e9);
  char buffer[64 * 1024] __attribute__((aligned(__alignof__(struct inotify_event))));
  while (count != 0) {
    const long long left_ms = (end - Now(CLOCK_MONOTONIC)) / 1000000;
    struct pollfd waiting = {.fd = fd, .events = POLLIN};
    if (left_ms <= 0 || poll(&waiting, 1, (int)left_ms) == 0) return 3;
    const ssize_t size = read(fd, buffer, sizeof(buffer));
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) return 1;
    const long long realtime = Now(CLOCK_REALTIME), monotonic = Now(CLOCK_MONOTONIC);
    for (char* at = buffer; at < buffer + size && count != 0;) {
      const struct inotify_event* event = (const void*)at;
      at += sizeof(*event) + event->len;
      char path[PATH_MAX] = "?";
      int reread = 0;
      for (int i = 0; i < n; ++i) {
        if (watches[i] != event->wd) continue;
        if (event->len > 0) {
          snprintf(path, sizeof(path), "%s/%s", paths[i], event->name);
        } else {
          snprintf(path, sizeof(path), "%s", paths[i]);
        }
        reread = (!directory[i] || event->len > 0) &&
                 (event->mask & (IN_MODIFY | IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE)) != 0;
      }
      for (size_t i = 0; i < sizeof(kEvents) / sizeof(kEvents[0]); ++i) {
        if ((event->mask & kEvents[i].bit) == 0) continue;
        char digest[65];
        Print(kEvents[i].name, path, realtime, monotonic, reread, digest);
        if (count > 0) --count;
        if (until != NULL && strcmp(until, digest) == 0) return 0;
      }
    }
  }
  return 0;
}
