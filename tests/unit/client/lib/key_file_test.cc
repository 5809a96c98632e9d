#include "client/lib/key_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>

using namespace latchkey::client;

namespace {

struct KeyFile {
  KeyFile() {
    char name[] = "/tmp/latchkey-key-XXXXXX";
    directory = ::mkdtemp(name);
    path = directory + "/app.key";
    std::ofstream(path) << "key";
  }
  ~KeyFile() { std::filesystem::remove_all(directory); }
  std::string directory, path;
};

}  // namespace

TEST_CASE("A key that others may use is named with its mode and the remedy", "[client]") {
  const KeyFile key;
  const auto [mode, text] = GENERATE(table<mode_t, const char*>({{0666, "0666"},
                                                                 {0604, "0604"},
                                                                 {0602, "0602"},
                                                                 {0620, "0620"},
                                                                 {0601, "0601"},
                                                                 {0660, "0660"}}));
  REQUIRE(::chmod(key.path.c_str(), mode) == 0);
  const std::string warning = KeyFileWarning(key.path);
  CHECK(warning.find("\"" + key.path + "\" has mode " + text) != std::string::npos);
  CHECK(warning.find("chmod 600 " + key.path) != std::string::npos);
  const std::string link = key.directory + "/link";
  REQUIRE(::symlink(key.path.c_str(), link.c_str()) == 0);
  CHECK(KeyFileWarning(link).find(std::string("mode ") + text) != std::string::npos);
}

TEST_CASE("A key of its owner alone is fine, also behind a link", "[client]") {
  const KeyFile key;
  const mode_t mode = GENERATE(as<mode_t>{}, 0600, 0400, 0700);
  REQUIRE(::chmod(key.path.c_str(), mode) == 0);
  CHECK(KeyFileWarning(key.path).empty());
  const std::string link = key.directory + "/link";
  REQUIRE(::symlink(key.path.c_str(), link.c_str()) == 0);
  CHECK(KeyFileWarning(link).empty());
  CHECK(KeyFileWarning(key.directory + "/absent").empty());
}

TEST_CASE("A group may read a key that root owns, and no other", "[client]") {
  if (::geteuid() != 0) {
    WARN("skipped: giving files away needs root");
    return;
  }
  const KeyFile key;
  REQUIRE(::chmod(key.path.c_str(), 0640) == 0);
  CHECK(KeyFileWarning(key.path).empty());
  REQUIRE(::chown(key.path.c_str(), 1000, 1000) == 0);
  CHECK_FALSE(KeyFileWarning(key.path).empty());
}
