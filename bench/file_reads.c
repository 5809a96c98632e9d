// Times file calls on a directory of secrets: the mount, or a tmpfs as the yardstick. Every read is
// checked for its length.
//
//   file_reads [--threads N] [--seconds S] DIRECTORY
//
// Walks over the regular files of DIRECTORY that do not begin with a dot. Prints one JSON object:
//   open_read_close: open, one read into a buffer of st_size + 1 bytes, close        (p50, p99 in
//   us; per second) read_to_end:     the same, reading until read(2) answers 0 stat: stat(2)
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { kMaxFiles = 4096, kMaxThreads = 8, kMaxBytes = 1 << 20, kMaxSamples = 1 << 21 };

static char* files[kMaxFiles];
static size_t file_count;
static double seconds = 3;

enum Kind { kOneRead, kToEnd, kStat };

struct Worker {
  pthread_t id;
  enum Kind kind;
  size_t first;
  float* samples;
  size_t count;
  double elapsed;
};

static double Now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void Die(const char* what, const char* path) {
  fprintf(stderr, "file_reads: %s %s: %s\n", what, path, strerror(errno));
  exit(1);
}

static void Once(enum Kind kind, const char* path, char* buffer) {
  if (kind == kStat) {
    struct stat st;
    if (stat(path, &st) != 0) Die("stat", path);
    return;
  }
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) Die("open", path);
  ssize_t n = read(fd, buffer, kMaxBytes), total = n;
  while (kind == kToEnd && n > 0) {
    n = read(fd, buffer, kMaxBytes);
    total += n;
  }
  if (n < 0 || total == 0) Die("read", path);
  close(fd);
}

static void* Go(void* argument) {
  struct Worker* worker = argument;
  char* buffer = malloc(kMaxBytes);
  if (buffer == NULL) abort();
  const double start = Now();
  double now = start;
  for (size_t i = worker->first; now - start < seconds && worker->count < kMaxSamples; ++i) {
    Once(worker->kind, files[i % file_count], buffer);
    const double after = Now();
    worker->samples[worker->count++] = (float)((after - now) * 1e6);
    now = after;
  }
  worker->elapsed = now - start;
  free(buffer);
  return NULL;
}

static int Compare(const void* a, const void* b) {
  const float x = *(const float*)a, y = *(const float*)b;
  return (x > y) - (x < y);
}

static void Measure(const char* name, enum Kind kind, int threads) {
  struct Worker workers[kMaxThreads];
  for (int i = 0; i < threads; ++i) {
    workers[i] = (struct Worker){.kind = kind,
                                 .first = (size_t)i * file_count / (size_t)threads,
                                 .samples = malloc(sizeof(float) * kMaxSamples)};
    if (workers[i].samples == NULL || pthread_create(&workers[i].id, NULL, Go, &workers[i]) != 0)
      abort();
  }
  size_t total = 0;
  double per_second = 0;
  for (int i = 0; i < threads; ++i) {
    pthread_join(workers[i].id, NULL);
    total += workers[i].count;
    per_second += (double)workers[i].count / workers[i].elapsed;
  }
  float* all = malloc(sizeof(float) * total);
  if (all == NULL) abort();
  size_t at = 0;
  for (int i = 0; i < threads; ++i) {
    memcpy(all + at, workers[i].samples, sizeof(float) * workers[i].count);
    at += workers[i].count;
    free(workers[i].samples);
  }
  qsort(all, total, sizeof(all[0]), Compare);
  printf(
      "\"%s\":{\"per_second\":%.0f,\"count\":%zu,\"p50_us\":%.2f,\"p99_us\":%.2f,\"max_us\":%.1f}",
      name, per_second, total, (double)all[total / 2], (double)all[total * 99 / 100],
      (double)all[total - 1]);
  free(all);
}

int main(int argc, char** argv) {
  int threads = 1;
  const char* directory = NULL;
  for (int i = 1; i < argc; ++i) {
    if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc) {
      threads = (int)strtol(argv[++i], NULL, 10);
    } else if (strcmp(argv[i], "--seconds") == 0 && i + 1 < argc) {
      seconds = strtod(argv[++i], NULL);
    } else {
      directory = argv[i];
    }
  }
  if (directory == NULL || threads < 1 || threads > kMaxThreads) return 2;
  DIR* listing = opendir(directory);
  if (listing == NULL) Die("opendir", directory);
  for (struct dirent* entry; (entry = readdir(listing)) != NULL && file_count < kMaxFiles;) {
    char path[4096];
    struct stat st;
    snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
    if (entry->d_name[0] != '.' && stat(path, &st) == 0 && S_ISREG(st.st_mode))
      files[file_count++] = strdup(path);
  }
  closedir(listing);
  if (file_count == 0) Die("no files in", directory);
  printf("{\"files\":%zu,\"threads\":%d,", file_count, threads);
  Measure("open_read_close", kOneRead, threads);
  printf(",");
  Measure("read_to_end", kToEnd, threads);
  printf(",");
  Measure("stat", kStat, threads);
  printf("}\n");
  return 0;
}
