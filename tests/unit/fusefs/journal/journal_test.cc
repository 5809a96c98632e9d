#include <fcntl.h>
#include <linux/fuse.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <cstring>
#include <thread>

#include "fusefs/journal/events.h"
#include "fusefs/journal/handover.h"
#include "fusefs/journal/region.h"
#include "fusefs/journal/slot.h"

using namespace latchkey;
using namespace latchkey::journal;

namespace {

Region NewRegion() {
  auto region = Region::Create();
  REQUIRE(region.has_value());
  return std::move(region).value();
}

// A descriptor from which one request of `opcode` can be read.
UniqueFd RequestPipe(std::uint32_t opcode) {
  std::array<int, 2> ends{};
  REQUIRE(pipe(ends.data()) == 0);
  fuse_in_header header{};
  header.len = sizeof header + 8;
  header.opcode = opcode;
  header.unique = 77;
  std::array<std::uint8_t, sizeof header + 8> bytes{};
  std::memcpy(bytes.data(), &header, sizeof header);
  REQUIRE(write(ends[1], bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
  close(ends[1]);
  return UniqueFd(ends[0]);
}

std::vector<std::string> Made(Region& region, bool thorough = false) {
  std::vector<std::string> made;
  MakeEvents(region.layout(), region.layout().wake, thorough, [&](const Event& event) {
    made.push_back(std::string(event.name) + ":" +
                   std::to_string(static_cast<unsigned>(event.kind)));
  });
  return made;
}

}  // namespace

TEST_CASE("a region is shared through its descriptor and cannot change its size", "[journal]") {
  const Region region = NewRegion();
  const auto other = Region::Attach(region.fd());
  REQUIRE(other.has_value());
  region.layout().acknowledged.store(9);
  CHECK(other.value().layout().acknowledged.load() == 9);
  CHECK(ftruncate(region.fd(), 4096) != 0);
  CHECK(ftruncate(region.fd(), 1 << 30) != 0);
}

TEST_CASE("a descriptor that is no region is refused", "[journal]") {
  const UniqueFd small(memfd_create("x", MFD_CLOEXEC));
  REQUIRE(ftruncate(small.get(), 4096) == 0);
  CHECK(Region::Attach(small.get()).error().code == Errc::kCorrupt);
  const UniqueFd zero(memfd_create("x", MFD_CLOEXEC));
  REQUIRE(ftruncate(zero.get(), sizeof(Layout)) == 0);
  CHECK(Region::Attach(zero.get()).error().code == Errc::kCorrupt);
  CHECK_FALSE(Region::Attach(-1).has_value());
}

TEST_CASE("INIT is kept for the next worker, and one that is too long is not", "[journal]") {
  const Region region = NewRegion();
  CHECK(region.SavedInit().empty());
  const ByteVector init(104, 7);
  region.SaveInit(init);
  CHECK(region.SavedInit() == init);
  region.SaveInit(ByteVector(kInitBytes + 1, 8));
  CHECK(region.SavedInit() == init);
}

TEST_CASE("a request stays in its slot until it is finished, also for another process",
          "[journal]") {
  const Region region = NewRegion();
  RequestSlot slot(region, 1);
  CHECK(slot.request().empty());
  const UniqueFd pipe_fd = RequestPipe(FUSE_GETATTR);
  REQUIRE(slot.Read(pipe_fd.get()) == sizeof(fuse_in_header) + 8);
  slot.Begin();
  const auto other = Region::Attach(region.fd());
  RequestSlot same(other.value(), 1);  // making it touches the memory and must not change it
  CHECK(same.request().size() == sizeof(fuse_in_header) + 8);
  CHECK(RequestSlot(other.value(), 0).request().empty());
  slot.Finish();
  CHECK(same.request().empty());
}

TEST_CASE("an impossible length in a slot is no request", "[journal]") {
  const Region region = NewRegion();
  RequestSlot slot(region, 0);
  for (const std::uint32_t length : {1U, 39U, 16385U, 0xffffffffU}) {
    std::memcpy(region.layout().requests[0].data(), &length, sizeof length);
    CHECK(slot.request().empty());
  }
}

TEST_CASE("a note belongs to one request only", "[journal]") {
  const Region region = NewRegion();
  RequestSlot slot(region, 0);
  const UniqueFd first = RequestPipe(FUSE_OPEN);
  slot.Read(first.get());
  CHECK_FALSE(slot.Note().has_value());
  slot.SetNote(42);
  CHECK(slot.Note() == 42U);
  CHECK(RequestSlot(region, 0).Note() == 42U);
  const UniqueFd second = RequestPipe(FUSE_OPEN);
  slot.Read(second.get());
  CHECK_FALSE(slot.Note().has_value());
}

TEST_CASE("strikes count only for a request that was being handled when its worker was to blame",
          "[journal]") {
  const Region region = NewRegion();
  RequestSlot slot(region, 0);
  const UniqueFd pipe_fd = RequestPipe(FUSE_STATFS);
  slot.Read(pipe_fd.get());
  CHECK(slot.TakeOver(true) == 0);  // read, never begun
  slot.Begin();
  CHECK(slot.TakeOver(false) == 0);  // killed from outside
  slot.Begin();
  CHECK(slot.TakeOver(true) == 1);
  CHECK(slot.TakeOver(true) == 1);  // not begun by the one after
  slot.Begin();
  CHECK(slot.TakeOver(true) == 2);
  slot.Finish();
  const UniqueFd next = RequestPipe(FUSE_STATFS);
  slot.Read(next.get());
  slot.Begin();
  CHECK(slot.TakeOver(true) == 1);
}

TEST_CASE("a read error is handed on and leaves no request", "[journal]") {
  const Region region = NewRegion();
  RequestSlot slot(region, 0);
  CHECK(slot.Read(-1) == -EBADF);
  CHECK(slot.request().empty());
}

TEST_CASE("an event is made once, and again after it changed again", "[journal]") {
  Region region = NewRegion();
  Layout& layout = region.layout();
  CHECK_FALSE(HasPending(layout.wake));
  MarkEvent(layout, layout.wake, 40, "token", EventKind::kRotated, 5);
  CHECK(HasPending(layout.wake));
  CHECK(MarkedGeneration(layout.wake, 40) == 5);
  CHECK(Made(region) == std::vector<std::string>{"token:0"});
  CHECK(Made(region).empty());
  CHECK(Made(region, true).empty());
  MarkEvent(layout, layout.wake, 40, "token", EventKind::kRotated, 6);
  CHECK(Made(region) == std::vector<std::string>{"token:0"});
  CHECK_FALSE(HasPending(layout.wake));
}

TEST_CASE("a helper that died between look and touch leaves the event to the next", "[journal]") {
  Region region = NewRegion();
  Layout& layout = region.layout();
  MarkEvent(layout, layout.wake, 100, "token", EventKind::kNew, 1);
  const pid_t helper = fork();
  if (helper == 0) {
    MakeEvents(layout, layout.wake, false, [](const Event&) { _exit(0); });
    _exit(1);
  }
  int status = 0;
  waitpid(helper, &status, 0);
  REQUIRE(WEXITSTATUS(status) == 0);
  CHECK(Made(region, true) == std::vector<std::string>{"token:1"});
}

TEST_CASE("a new name that rotates before it appeared gets both events", "[journal]") {
  Region region = NewRegion();
  Layout& layout = region.layout();
  MarkEvent(layout, layout.wake, 40, "token", EventKind::kNew, 1);
  MarkEvent(layout, layout.wake, 40, "token", EventKind::kRotated, 2);
  CHECK(Made(region) == std::vector<std::string>{"token:2"});
  MarkEvent(layout, layout.wake, 40, "token", EventKind::kNew, 3);
  MarkEvent(layout, layout.wake, 40, "token", EventKind::kRevoked, 4);
  CHECK(Made(region) == std::vector<std::string>{"token:3"});
}

TEST_CASE("a name that is no harmless path component is never given to a helper", "[journal]") {
  Region region = NewRegion();
  Layout& layout = region.layout();
  std::uint32_t node = 50;
  for (const char* name : {"..", ".", "a/b", "a\nb", "/etc/passwd"}) {
    MarkEvent(layout, layout.wake, node, "good", EventKind::kRevoked, 1);
    std::strcpy(layout.names[node].data(), name);
    ++node;
  }
  MarkEvent(layout, layout.wake, node, "good", EventKind::kRevoked, 1);
  std::memset(layout.names[node].data(), 'x', kNodeNameBytes);  // without an end
  CHECK(Made(region).empty());
  CHECK_FALSE(HasPending(layout.wake));
  MarkEvent(layout, layout.wake, kNodes, "outside", EventKind::kNew, 1);
  CHECK_FALSE(HasPending(layout.wake));
}

TEST_CASE("a futex word wakes its waiter and a wait ends by itself", "[journal]") {
  const Region region = NewRegion();
  HalfWord& word = region.layout().mounted;
  CHECK_FALSE(WaitWhile(word, 0, std::chrono::milliseconds(1)));
  bool changed = false;
  std::thread waiter([&] { changed = WaitWhile(word, 0, std::chrono::seconds(20)); });
  Raise(word, 1);
  waiter.join();
  CHECK(changed);
}

TEST_CASE("a poke never blocks", "[journal]") {
  std::array<int, 2> ends{};
  REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, ends.data()) == 0);
  for (int i = 0; i < 100'000; ++i) Poke(ends[0]);
  char byte = 0;
  CHECK(recv(ends[1], &byte, 1, 0) == 1);
  close(ends[0]);
  close(ends[1]);
}

TEST_CASE("a handover survives an exec and nonsense is refused", "[journal]") {
  CHECK(ParseHandover("").error().code == Errc::kInvalidArgument);
  CHECK(ParseHandover("01").error().code == Errc::kInvalidArgument);
  CHECK(ParseHandover("0x000L/path").error().code == Errc::kInvalidArgument);
  CHECK(ParseHandover("00000?/path").error().code == Errc::kInvalidArgument);
  const auto none = ParseHandover("00000U/run/x");
  REQUIRE(none.has_value());
  CHECK(none.value().fuse_fd == -1);
  CHECK_FALSE(none.value().content_locked);
  CHECK(none.value().private_path == "/run/x");
  const Region region = NewRegion();
  Handover handover;
  handover.region_fd = region.fd();
  handover.private_path = "/p q";
  std::array<int, 2> out{};
  REQUIRE(pipe(out.data()) == 0);
  const pid_t child = fork();
  if (child == 0) {
    dup2(out[1], 1);
    const Error error =
        ExecWith(handover, "/bin/sh",
                 {"sh", "-c", "readlink /proc/self/fd/4; ls /proc/self/fd | wc -l; echo \"$0\""});
    _exit(error.message.empty() ? 1 : 2);
  }
  close(out[1]);
  std::string text;
  for (char c = 0; read(out[0], &c, 1) == 1;) text.push_back(c);
  close(out[0]);
  waitpid(child, nullptr, 0);
  CHECK(text.find("memfd:latchkey-journal") != std::string::npos);
  CHECK(text.find("--handover=01000L/p q") != std::string::npos);
}
