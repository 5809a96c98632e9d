#include "client/lib/wiped_bytes.h"

#include <catch2/catch.hpp>

namespace latchkey::client {

static_assert(!std::is_copy_constructible_v<WipedBytes>);

TEST_CASE("Wiped bytes keep what was appended across every growth", "[client]") {
  WipedBytes buffer;
  std::string wanted;
  for (int i = 0; i < 3000; ++i) {
    const std::string piece(static_cast<std::size_t>(i % 7), static_cast<char>('a' + i % 26));
    buffer.Append(piece);
    wanted += piece;
  }
  CHECK(AsText(buffer.bytes()) == wanted);
  WipedBytes moved = std::move(buffer);
  CHECK(AsText(moved.bytes()) == wanted);
  moved.Clear();
  CHECK(moved.empty());
  moved.Append(std::string_view("again"));
  CHECK(AsText(moved.bytes()) == "again");
}

TEST_CASE("Reserved bytes are not moved again, and extended ones are zero", "[client]") {
  WipedBytes buffer;
  buffer.Reserve(1000);
  buffer.Append(std::string_view("x"));
  const auto* at = buffer.bytes().data();
  const MutableBytes room = buffer.Extend(999);
  CHECK(buffer.bytes().data() == at);
  CHECK(std::all_of(room.begin(), room.end(), [](std::uint8_t byte) { return byte == 0; }));
}

}  // namespace latchkey::client
