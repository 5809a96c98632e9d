#include "server/audit/anchor.h"

#include <catch2/catch.hpp>

#include "common/base/unique_fd.h"
#include "tests/unit/server/audit/audit_fixture.h"

namespace latchkey::audit {
namespace {

Anchor SomeAnchor() {
  Anchor anchor;
  anchor.store_id.fill(0x11);
  anchor.generation = Generation{17};
  anchor.store.seq = 9;
  anchor.store.hash.fill(0x22);
  anchor.access_chain = "access:test";
  anchor.access.seq = 1234;
  anchor.access.hash.fill(0x33);
  return anchor;
}

StorePosition PositionOf(const Anchor& anchor) {
  return {anchor.store_id, anchor.generation, anchor.store};
}

Result<std::optional<crypto::Hash>> SameHash(std::uint64_t) {
  return std::optional(SomeAnchor().store.hash);
}

}  // namespace

TEST_CASE("An anchor reads back as it was written, and replaces the one before", "[audit]") {
  const ScratchDir dir;
  const std::string path = dir.File("anchor");
  CHECK(ReadAnchor(path, TestKey()).value() == std::nullopt);
  Anchor anchor = SomeAnchor();
  REQUIRE(WriteAnchor(path, TestKey(), anchor).has_value());
  CHECK(ReadAnchor(path, TestKey()).value() == anchor);
  anchor.generation = Generation{18};
  REQUIRE(WriteAnchor(path, TestKey(), anchor).has_value());
  CHECK(ReadAnchor(path, TestKey()).value() == anchor);
  CHECK_FALSE(std::filesystem::exists(path + ".new"));
  CHECK((std::filesystem::status(path).permissions() & std::filesystem::perms(077)) ==
        std::filesystem::perms::none);
}

TEST_CASE("An anchor has the text that docs/formats.md shows", "[audit]") {
  std::ifstream in(TESTS_SOURCE_DIR "/../docs/formats.md");
  const std::string formats{std::istreambuf_iterator<char>(in), {}};
  CHECK_THAT(formats, Catch::Contains("```\n" + EncodeAnchor(TestKey(), SomeAnchor()) + "```\n"));
}

TEST_CASE("Any changed or missing byte of an anchor is refused, as is another key", "[audit]") {
  const std::string text = EncodeAnchor(TestKey(), SomeAnchor());
  REQUIRE(DecodeAnchor(TestKey(), text).has_value());
  for (std::size_t at = 0; at < text.size(); ++at) {
    std::string changed = text;
    changed[at] = static_cast<char>(changed[at] ^ 1);
    // The one freedom: hex of the MAC in upper case would be the same MAC; flipping bit 0 never
    // gives that.
    REQUIRE_FALSE(DecodeAnchor(TestKey(), changed).has_value());
    REQUIRE_FALSE(DecodeAnchor(TestKey(), text.substr(0, at)).has_value());
  }
  CHECK_FALSE(DecodeAnchor(TestKey(), text + "\n").has_value());
  ByteArray<32> bytes;
  bytes.fill(7);
  CHECK_FALSE(DecodeAnchor(crypto::AuditKey::FromBytes(bytes).value(), text).has_value());
}

TEST_CASE("An anchor in a directory that is absent cannot be written, and the error names it",
          "[audit]") {
  const ScratchDir dir;
  const Status status = WriteAnchor(dir.File("nowhere/anchor"), TestKey(), SomeAnchor());
  REQUIRE_FALSE(status.has_value());
  CHECK_THAT(status.error().message, Catch::Contains("nowhere/anchor"));
}

TEST_CASE("A FIFO or a link for the anchor or its new text is refused, not waited for", "[audit]") {
  const ScratchDir dir;
  const std::string path = dir.File("anchor");
  SECTION("a FIFO for the anchor") {
    REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
    const auto read = ReadAnchor(path, TestKey());
    REQUIRE_FALSE(read.has_value());
    CHECK(read.error().code == Errc::kPermissionDenied);
    CHECK_THAT(read.error().message,
               Catch::Contains(path) && Catch::Contains("not a regular file"));
  }
  SECTION("a FIFO for the new text") {
    REQUIRE(::mkfifo((path + ".new").c_str(), 0600) == 0);
    const bool is_read_by_somebody = GENERATE(false, true);
    const UniqueFd reader(is_read_by_somebody
                              ? ::open((path + ".new").c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC)
                              : -1);
    const Status written = WriteAnchor(path, TestKey(), SomeAnchor());
    REQUIRE_FALSE(written.has_value());
    CHECK_THAT(written.error().message,
               Catch::Contains("anchor.new") && Catch::Contains("not a regular file"));
    CHECK_FALSE(std::filesystem::exists(path));
  }
  SECTION("a link for the anchor") {
    REQUIRE(WriteAnchor(dir.File("real"), TestKey(), SomeAnchor()).has_value());
    REQUIRE(::symlink("real", path.c_str()) == 0);
    const auto read = ReadAnchor(path, TestKey());
    REQUIRE_FALSE(read.has_value());
    CHECK_THAT(read.error().message, Catch::Contains("symbolic link"));
  }
}

TEST_CASE("A store at or beyond its anchor is taken, an older or other one is refused", "[audit]") {
  const Anchor anchor = SomeAnchor();
  StorePosition store = PositionOf(anchor);
  CHECK(CheckAgainstAnchor(anchor, store, SameHash).has_value());
  store.generation = Generation{18};
  store.head.seq = 10;
  store.head.hash.fill(0x77);
  CHECK(CheckAgainstAnchor(anchor, store, SameHash).has_value());

  const auto refusal = [&](const StorePosition& position) {
    const Status status = CheckAgainstAnchor(anchor, position, SameHash);
    REQUIRE_FALSE(status.has_value());
    CHECK(status.error().code == Errc::kConflict);
    CHECK_THAT(status.error().message, Catch::Contains("--accept-rollback"));
    return status.error().message;
  };
  store = PositionOf(anchor);
  store.generation = Generation{16};
  CHECK_THAT(refusal(store),
             Catch::StartsWith("the store is older than its anchor: generation 16 of 17"));
  store = PositionOf(anchor);
  store.head.seq = 8;
  CHECK_THAT(refusal(store), Catch::Contains("audit record 8 of 9"));
  store = PositionOf(anchor);
  store.store_id[0] ^= 1;
  CHECK_THAT(refusal(store), Catch::Contains("another store"));

  store = PositionOf(anchor);
  const Status differs = CheckAgainstAnchor(anchor, store, [](std::uint64_t) {
    return Result<std::optional<crypto::Hash>>(std::optional(crypto::Hash{}));
  });
  REQUIRE_FALSE(differs.has_value());
  CHECK_THAT(differs.error().message, Catch::Contains("differs from its anchor at record 9"));
}

}  // namespace latchkey::audit
