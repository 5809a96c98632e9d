#include "fusefs/mount/tree.h"

#include <algorithm>
#include <array>
#include <cerrno>

namespace latchkey::mount {
namespace {

using snapshot::ControlFile;
using snapshot::NodeIndex;
using snapshot::View;

constexpr double kHour = 3600;
constexpr std::int64_t kNsPerSecond = 1'000'000'000;

struct Fixed {
  Inode parent;
  Inode inode;
  const char* name;
  bool directory;
};
constexpr Inode InodeOf(ControlFile file) {
  return static_cast<Inode>(file);
}
constexpr std::array<Fixed, 12> kFixed = {{
    {snapshot::kRootNode, snapshot::kPubNode, "pub", true},
    {snapshot::kRootNode, snapshot::kNewNode, "new", true},
    {snapshot::kPubNode, InodeOf(ControlFile::kVersion), ".version", false},
    {snapshot::kPubNode, InodeOf(ControlFile::kRunning), ".running", false},
    {snapshot::kPubNode, InodeOf(ControlFile::kClearCache), ".clear_cache", false},
    {snapshot::kPubNode, snapshot::kJsonNode, ".json", true},
    {snapshot::kJsonNode, InodeOf(ControlFile::kStatus), "status", false},
    {snapshot::kJsonNode, InodeOf(ControlFile::kServerStatus), "server_status", false},
    {snapshot::kJsonNode, InodeOf(ControlFile::kMetrics), "metrics", false},
    {snapshot::kJsonNode, InodeOf(ControlFile::kSecrets), "secrets", false},
    {snapshot::kJsonNode, InodeOf(ControlFile::kThreads), "threads", false},
    {snapshot::kJsonNode, snapshot::kJsonSecretNode, "secret", true},
}};
constexpr off_t kFirstCookie = 3;  // 1 and 2 are "." and ".."
static_assert(kFixed.size() + kFirstCookie < snapshot::kFirstSecretNode);

bool IsLive(const snapshot::Snapshot& now, NodeIndex node) {
  const snapshot::NodeView* view = now.Find(node);
  return view != nullptr && view->record != snapshot::kNoRecord;
}

bool ListsSecrets(Inode directory) {
  return directory == snapshot::kPubNode || directory == snapshot::kJsonSecretNode;
}

// rename(/new/xNAME, /pub/NAME) needs a source: every xNAME is the same stand-in.
bool IsStandInName(std::string_view name) {
  return name.size() > 1 && name.front() == 'x';
}

}  // namespace

std::optional<Place> PlaceOf(Inode inode) {
  const bool twin = (inode & journal::kTwinBit) != 0;
  const Inode plain = inode & ~journal::kTwinBit;
  if (plain == 0 || plain >= limits::kMaxMountNodes) return std::nullopt;
  const auto node = static_cast<NodeIndex>(plain);
  const bool secret = node >= snapshot::kFirstSecretNode;
  if (twin && !secret) return std::nullopt;
  const bool control = node >= snapshot::kFirstControlNode && node < snapshot::kEndControlNode;
  return Place{node, twin ? View::kJson : View::kContent, node <= snapshot::kJsonSecretNode,
               secret || control};
}

bool Tree::IsDirectory(Inode inode) const {
  const auto place = PlaceOf(inode);
  return place.has_value() && place->directory;
}

int Tree::Lookup(Inode parent, std::string_view name, Inode* inode) const {
  if (!IsDirectory(parent)) return ENOTDIR;
  for (const Fixed& fixed : kFixed) {
    if (fixed.parent != parent || name != fixed.name) continue;
    *inode = fixed.inode;
    return 0;
  }
  if (parent == snapshot::kNewNode) {
    *inode = snapshot::kStandInNode;
    return IsStandInName(name) ? 0 : ENOENT;
  }
  if (!ListsSecrets(parent)) return ENOENT;
  const auto now = store_.Current();
  if (now->generation == 0) return EIO;
  const snapshot::NodeView* view = now->Lookup(name);
  if (view == nullptr) return ENOENT;
  *inode = parent == snapshot::kPubNode ? view->node : journal::kTwinBit | view->node;
  return 0;
}

int Tree::Stat(Inode inode, Attributes* out) const {
  const auto place = PlaceOf(inode);
  if (!place.has_value()) return ENOENT;
  *out = Attributes{};
  out->stat.st_ino = inode;
  out->stat.st_blksize = 4096;
  if (place->directory) return StatDirectory(inode, out);
  if (place->has_content) return StatContent(*place, inode, out);
  if (inode != snapshot::kStandInNode) return ENOENT;
  out->stat.st_mode = S_IFREG | 0400;
  out->stat.st_nlink = 1;
  return 0;
}

int Tree::StatDirectory(Inode inode, Attributes* out) const {
  const bool open_to_all = inode == snapshot::kRootNode || inode == snapshot::kPubNode;
  const auto changed_ns = static_cast<std::int64_t>(store_.Current()->structure_ns);
  out->stat.st_mode = S_IFDIR | (open_to_all ? 0755 : 0700);
  out->stat.st_nlink = inode == snapshot::kJsonSecretNode ? 2 : 3;
  out->stat.st_size = 4096;
  out->stat.st_uid =
      inode == snapshot::kJsonNode || inode == snapshot::kJsonSecretNode ? options_.control_uid : 0;
  out->stat.st_gid =
      inode == snapshot::kJsonNode || inode == snapshot::kJsonSecretNode ? options_.control_gid : 0;
  out->stat.st_mtim = {changed_ns / kNsPerSecond, changed_ns % kNsPerSecond};
  out->stat.st_atim = out->stat.st_ctim = out->stat.st_mtim;
  // The notices of a publication name /pub only.
  out->timeout_s = inode == snapshot::kPubNode ? kHour : 0;
  return 0;
}

int Tree::StatContent(const Place& place, Inode inode, Attributes* out) const {
  std::shared_ptr<const snapshot::Snapshot> now;
  const auto size = store_.SizeOf(place.node, place.view, snapshot::MonotonicNs(), &now);
  if (!size.has_value()) return now != nullptr && now->generation == 0 ? EIO : ENOENT;
  const snapshot::VersionInfo info = store_.Info(now->Find(place.node)->record);
  const bool secret = place.node >= snapshot::kFirstSecretNode;
  out->stat.st_ino = inode;
  out->stat.st_nlink = 1;
  out->stat.st_size = static_cast<off_t>(size->bytes);
  out->open_bytes = static_cast<off_t>(size->open_bytes);
  out->current = info.handle;
  if (secret && place.view == View::kContent && !size->staged)
    out->touched_as = now->Find(place.node)->changed_generation;
  // Two versions of one second must differ, or the kernel keeps pages of the older one for mmap and sendfile.
  out->stat.st_mtim = {info.mtime_s, static_cast<long>(info.number % kNsPerSecond)};
  out->stat.st_atim = out->stat.st_ctim = out->stat.st_mtim;
  if (secret && place.view == View::kContent) {
    out->stat.st_mode = S_IFREG | (info.mode & 0444U);
    out->stat.st_uid = info.uid;
    out->stat.st_gid = info.gid;
  } else {
    out->stat.st_mode = S_IFREG | (secret ? 0400U : info.mode & 0444U);
    out->stat.st_uid = options_.control_uid;
    out->stat.st_gid = options_.control_gid;
  }
  out->timeout_s = size->settled ? kHour : 0;
  return 0;
}

std::vector<Child> Tree::Children(Inode directory, off_t cookie, std::size_t limit) const {
  std::vector<Child> list;
  const auto now = store_.Current();
  for (std::size_t at = 0; at < kFixed.size(); ++at) {
    const auto own_cookie = static_cast<off_t>(at) + kFirstCookie;
    const Fixed& fixed = kFixed[at];
    if (fixed.parent != directory || own_cookie <= cookie) continue;
    if (!fixed.directory && !IsLive(*now, static_cast<NodeIndex>(fixed.inode))) continue;
    list.push_back({fixed.name, fixed.inode, fixed.directory, own_cookie});
  }
  if (!ListsSecrets(directory)) return list;
  const auto first = std::max<NodeIndex>(
      snapshot::kFirstSecretNode,
      cookie < 0 ? 0 : static_cast<NodeIndex>(std::min<off_t>(cookie, limits::kMaxMountNodes)) + 1);
  for (NodeIndex node = first; node < now->nodes.size() && list.size() < limit; ++node) {
    if (!IsLive(*now, node)) continue;
    const Inode inode = directory == snapshot::kPubNode ? node : journal::kTwinBit | node;
    list.push_back({std::string(store_.FileName(node)), inode, false, static_cast<off_t>(node)});
  }
  return list;
}

}  // namespace latchkey::mount
