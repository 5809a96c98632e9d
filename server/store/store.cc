#include "server/store/store.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <future>
#include <system_error>
#include <utility>

#include "common/base/check.h"
#include "common/base/unique_fd.h"
#include "server/store/backup.h"
#include "server/store/files.h"
#include "server/store/reader_pool.h"
#include "server/store/schema.h"
#include "server/store/sqlite.h"
#include "server/store/writer.h"

namespace latchkey::store {
struct Store::Parts {
  std::filesystem::path path;
  OpenMode mode = OpenMode::kSnapshot;
  UniqueFd lock;
  StoreInfo info;
  std::atomic<bool> failed = false;
  std::function<void(const Error&)> fatal;  // sets `failed`, then tells the program
  std::unique_ptr<ReaderPool> pool;
  std::unique_ptr<Connection> write_connection;  // until Start
  std::unique_ptr<Writer> writer;                // from Start on
};

Status Store::Create(const std::filesystem::path& path, const ByteArray<16>& store_id,
                     std::int64_t created_at, const std::string& vfs) {
  ASSIGN_OR_RETURN(const UniqueFd lock, Lock(path));
  UniqueFd file(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!file.valid()) {
    if (errno == EEXIST) {
      return Error{Errc::kConflict, "store: " + Quoted(path) + " exists already"};
    }
    return FileError("store", path, "cannot be made");
  }
  // Closed before SQLite opens it: closing it later would drop SQLite's locks on the file.
  file.Reset();
  const auto make = [&]() -> Status {
    ASSIGN_OR_RETURN(const auto connection,
                     Connection::Open(path.string(), Connection::Kind::kWrite, vfs, {}));
    RETURN_IF_ERROR(CreateSchema(*connection, store_id, created_at));
    // Into the main file, so that its header tells the schema even to a program that does not read
    // the log.
    return connection->Execute("PRAGMA wal_checkpoint(TRUNCATE)");
  };
  Status made = make();
  if (!made.has_value()) {
    for (const char* suffix : {"", "-wal", "-shm"}) ::unlink((path.string() + suffix).c_str());
  }
  return made;
}

Result<std::unique_ptr<Store>> Store::Open(const std::filesystem::path& path, OpenMode mode,
                                           Options options) {
  const bool exclusive = mode == OpenMode::kExclusive;
  RETURN_IF_ERROR(exclusive ? CheckOwnFile(path) : CheckFile(path));
  auto parts = std::make_unique<Parts>();
  parts->path = path;
  parts->mode = mode;
  parts->fatal = [flag = &parts->failed, tell = std::move(options.fatal)](const Error& error) {
    if (!flag->exchange(true) && tell) tell(error);
  };
  if (exclusive) {
    ASSIGN_OR_RETURN(parts->lock, Lock(path));
    RETURN_IF_ERROR(RefuseNewerSchema(path));
  }
  const auto kind = exclusive ? Connection::Kind::kWrite : Connection::Kind::kRead;
  ASSIGN_OR_RETURN(auto connection, Connection::Open(path.string(), kind, options.vfs, {}));
  RETURN_IF_ERROR(CheckSchema(*connection));
  {
    Reader reader(connection.get());
    ASSIGN_OR_RETURN(parts->info, reader.Info());
  }
  connection->SetFatal(parts->fatal);
  parts->pool = std::make_unique<ReaderPool>(path.string(), options.vfs, parts->fatal);
  if (exclusive) {
    parts->write_connection = std::move(connection);
  } else {
    parts->pool->GiveBack(std::move(connection));
  }
  return std::unique_ptr<Store>(new Store(std::move(parts)));
}

Store::Store(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

Store::~Store() {
  Stop();
}

void Store::Start(CommitObserver* observer) {
  INVARIANT(parts_->write_connection != nullptr);
  parts_->writer = std::make_unique<Writer>(std::move(parts_->write_connection), parts_->path,
                                            parts_->info.generation, observer);
}

void Store::Stop() {
  if (parts_->writer != nullptr) parts_->writer->Stop();
}

Status Store::Submit(Job job) {
  if (parts_->failed.load()) {
    return Error{Errc::kUnavailable, "store: stopped after a storage failure"};
  }
  if (parts_->writer == nullptr) return Error{Errc::kInternal, "store: not started for writing"};
  return parts_->writer->Submit(std::move(job));
}

Result<Generation> Store::RunJob(std::function<Status(Savepoint&)> run, bool bookkeeping) {
  std::promise<Result<Generation>> promise;
  auto future = promise.get_future();
  Job job;
  job.run = std::move(run);
  job.bookkeeping = bookkeeping;
  job.done = [&promise](const Status& status, Generation generation) {
    promise.set_value(status.has_value() ? Result<Generation>(generation)
                                         : Result<Generation>(status.error()));
  };
  RETURN_IF_ERROR(Submit(std::move(job)));
  return future.get();
}

Result<Reader> Store::Read() {
  ASSIGN_OR_RETURN(auto connection, parts_->pool->Take());
  Reader reader(std::move(connection), parts_->pool.get());
  RETURN_IF_ERROR(reader.Begin());
  return reader;
}

Result<VersionRow> Store::LoadVersion(VersionId id) {
  ASSIGN_OR_RETURN(auto connection, parts_->pool->Take());
  return Reader(std::move(connection), parts_->pool.get()).LoadVersion(id);
}

Generation Store::generation() const {
  return parts_->writer != nullptr ? parts_->writer->generation() : parts_->info.generation;
}

const ByteArray<16>& Store::store_id() const {
  return parts_->info.store_id;
}

std::size_t Store::queued_writes() const {
  return parts_->writer != nullptr ? parts_->writer->queued() : 0;
}

std::optional<Error> Store::write_trouble() const {
  return parts_->writer != nullptr ? parts_->writer->trouble() : std::nullopt;
}

Result<Generation> Store::Backup(const std::filesystem::path& target) {
  ASSIGN_OR_RETURN(auto connection, parts_->pool->Take());
  Result<Generation> copied = CopyTo(*connection, target);
  parts_->pool->GiveBack(std::move(connection));
  return copied;
}

Result<std::vector<TableColumns>> SchemaColumns(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(const auto connection,
                   Connection::Open(path.string(), Connection::Kind::kRead, {}, {}));
  Statement statement = connection->Prepare(
      "SELECT t.name, c.name FROM sqlite_schema t, pragma_table_info(t.name) c "
      "WHERE t.type = 'table' ORDER BY t.name, c.cid");
  std::vector<TableColumns> tables;
  for (;;) {
    ASSIGN_OR_RETURN(const bool more, statement.Step());
    if (!more) return tables;
    std::string table = statement.Text();
    std::string column = statement.Text();
    RETURN_IF_ERROR(statement.RowStatus("sqlite_schema"));
    if (tables.empty() || tables.back().table != table) tables.push_back({std::move(table), {}});
    tables.back().columns.push_back(std::move(column));
  }
}

}  // namespace latchkey::store
