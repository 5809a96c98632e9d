// The yardstick of the write path: bare SQLite, WAL, synchronous=FULL, one thread, one row of about
// the size of a sealed version per transaction, one transaction at a time. Prints
// {"commits_per_second":..,"p50_us":..,"p99_us":..}.
//
//   sqlite_commits DIRECTORY [SECONDS]
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { kMaxSamples = 1 << 20, kRowBytes = 1200 };

static double Now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int Compare(const void* a, const void* b) {
  const double x = *(const double*)a, y = *(const double*)b;
  return (x > y) - (x < y);
}

static void Run(sqlite3* db, const char* sql) {
  if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK) {
    fprintf(stderr, "sqlite_commits: %s: %s\n", sql, sqlite3_errmsg(db));
    exit(1);
  }
}

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  const double seconds = argc > 2 ? strtod(argv[2], NULL) : 5;
  char path[4096];
  snprintf(path, sizeof(path), "%s/yardstick.db", argv[1]);
  sqlite3* db = NULL;
  if (sqlite3_open(path, &db) != SQLITE_OK) {
    fprintf(stderr, "sqlite_commits: cannot open %s\n", path);
    return 1;
  }
  Run(db, "PRAGMA journal_mode=WAL");
  Run(db, "PRAGMA synchronous=FULL");
  Run(db,
      "CREATE TABLE versions (id INTEGER PRIMARY KEY, secret INTEGER, number INTEGER, sealed "
      "BLOB)");
  sqlite3_stmt *begin, *insert, *commit;
  sqlite3_prepare_v2(db, "BEGIN IMMEDIATE", -1, &begin, NULL);
  sqlite3_prepare_v2(db, "INSERT INTO versions (secret, number, sealed) VALUES (1, ?1, ?2)", -1,
                     &insert, NULL);
  sqlite3_prepare_v2(db, "COMMIT", -1, &commit, NULL);
  unsigned char row[kRowBytes];
  memset(row, 0xa5, sizeof(row));
  double* samples = malloc(sizeof(double) * kMaxSamples);
  if (samples == NULL) return 1;
  size_t count = 0;
  const double start = Now();
  double now = start;
  while (now - start < seconds && count < kMaxSamples) {
    sqlite3_bind_int64(insert, 1, (sqlite3_int64)count);
    sqlite3_bind_blob(insert, 2, row, sizeof(row), SQLITE_STATIC);
    if (sqlite3_step(begin) != SQLITE_DONE || sqlite3_step(insert) != SQLITE_DONE ||
        sqlite3_step(commit) != SQLITE_DONE) {
      fprintf(stderr, "sqlite_commits: %s\n", sqlite3_errmsg(db));
      return 1;
    }
    sqlite3_reset(begin);
    sqlite3_reset(insert);
    sqlite3_reset(commit);
    const double after = Now();
    samples[count++] = after - now;
    now = after;
  }
  qsort(samples, count, sizeof(samples[0]), Compare);
  printf("{\"commits_per_second\":%.1f,\"commits\":%zu,\"p50_us\":%.1f,\"p99_us\":%.1f}\n",
         (double)count / (now - start), count, samples[count / 2] * 1e6,
         samples[count * 99 / 100] * 1e6);
  sqlite3_finalize(begin);
  sqlite3_finalize(insert);
  sqlite3_finalize(commit);
  sqlite3_close(db);
  return 0;
}
