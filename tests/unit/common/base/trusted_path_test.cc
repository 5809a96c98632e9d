#include "common/base/trusted_path.h"

#include <fcntl.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>

namespace latchkey {
namespace {

class Scratch {
 public:
  Scratch() {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "latchkey-path-XXXXXX").string();
    REQUIRE(::mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~Scratch() { std::filesystem::remove_all(path_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

Errc CodeOf(const Result<UniqueFd>& opened) {
  REQUIRE_FALSE(opened.has_value());
  CHECK_THAT(opened.error().message, Catch::Contains("the thing"));
  return opened.error().code;
}

}  // namespace

TEST_CASE("A regular file opens, and a new one is made private", "[base]") {
  const Scratch dir;
  std::ofstream(dir / "file") << "text";
  CHECK(OpenRegularFile(dir / "file", O_RDONLY, "the thing").has_value());
  CHECK(OpenRegularFile(dir / "file", O_RDWR, "the thing").has_value());
  REQUIRE(OpenRegularFile(dir / "new", O_WRONLY | O_CREAT, "the thing").has_value());
  CHECK((std::filesystem::status(dir / "new").permissions() & std::filesystem::perms(077)) ==
        std::filesystem::perms::none);
}

TEST_CASE("Whatever is no regular file is refused at once, by name", "[base]") {
  const Scratch dir;
  REQUIRE(::mkfifo((dir / "fifo").c_str(), 0600) == 0);
  REQUIRE(::symlink("fifo", (dir / "link").c_str()) == 0);
  REQUIRE(::symlink("nothing", (dir / "dangling").c_str()) == 0);
  for (const int flags : {O_RDONLY, O_WRONLY, O_RDWR, O_WRONLY | O_CREAT | O_TRUNC}) {
    CAPTURE(flags);
    for (const char* name : {"fifo", "link", "dangling"}) {
      CAPTURE(name);
      CHECK(CodeOf(OpenRegularFile(dir / name, flags, "the thing")) == Errc::kPermissionDenied);
    }
    CHECK(CodeOf(OpenRegularFile(dir.path(), flags, "the thing")) == Errc::kPermissionDenied);
    CHECK(CodeOf(OpenRegularFile("/dev/null", flags, "the thing")) == Errc::kPermissionDenied);
  }
  CHECK(CodeOf(OpenRegularFile(dir / "none", O_RDONLY, "the thing")) == Errc::kNotFound);
}

TEST_CASE("A directory is ours when nobody else may write in it", "[base]") {
  const Scratch dir;
  const auto check = [&] { return CheckOwnDirectory(dir.path(), "the place"); };
  for (const mode_t mode : {0700, 0755, 0500, 0711}) {
    REQUIRE(::chmod(dir.path().c_str(), mode) == 0);
    CHECK(check().has_value());
  }
  for (const mode_t mode : {0720, 0702, 0777, 01777}) {
    CAPTURE(mode);
    REQUIRE(::chmod(dir.path().c_str(), mode) == 0);
    const Status status = check();
    REQUIRE_FALSE(status.has_value());
    CHECK(status.error().code == Errc::kPermissionDenied);
    CHECK_THAT(status.error().message,
               Catch::Contains("the place") && Catch::Contains("chmod go-w " + dir.path()));
  }
  REQUIRE(::chmod(dir.path().c_str(), 0700) == 0);
  std::ofstream(dir / "file") << "text";
  CHECK(CheckOwnDirectory(dir / "file", "the place").error().code == Errc::kPermissionDenied);
  CHECK(CheckOwnDirectory(dir / "none", "the place").error().code == Errc::kNotFound);
  if (::geteuid() != 0) return;
  REQUIRE(::chown(dir.path().c_str(), 12345, 0) == 0);
  CHECK_THAT(check().error().message, Catch::Contains("belongs to user 12345"));
}

}  // namespace latchkey
