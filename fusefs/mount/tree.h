// Tree: names, inode numbers and attributes of the private mount. Pure look-ups in one snapshot.
// Private to fusefs/mount.
#pragma once

#include <sys/stat.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fusefs/journal/layout.h"
#include "fusefs/mount/session.h"

namespace latchkey::mount {

using Inode = std::uint64_t;

// An inode number taken apart.
struct Place {
  snapshot::NodeIndex node;
  snapshot::View view;
  bool directory;
  bool has_content;  // control file or secret
};
std::optional<Place> PlaceOf(Inode inode);

struct Attributes {
  struct stat stat;
  double timeout_s;  // 0: the kernel must ask again
  // What the page cache, and with it sendfile, may hand out of a secret: less than st_size while a
  // longer version is still open.
  off_t open_bytes;
  snapshot::VersionHandle current;  // what a new open reads
  std::uint64_t touched_as;  // the generation that a touch of now tells the kernel of; 0: none
};

struct Child {
  std::string name;
  Inode inode;
  bool directory;
  off_t cookie;  // position after this entry; stable while names come and go
};

class Tree {
 public:
  Tree(const snapshot::SnapshotStore& store, const SessionOptions& options)
      : store_(store), options_(options) {}

  // 0 or an errno: ENOENT, or EIO before the first snapshot (R3).
  int Lookup(Inode parent, std::string_view name, Inode* inode) const;
  int Stat(Inode inode, Attributes* out) const;
  // Up to `limit` entries of a directory after `cookie`, without "." and "..".
  std::vector<Child> Children(Inode directory, off_t cookie, std::size_t limit) const;
  bool IsDirectory(Inode inode) const;

 private:
  int StatDirectory(Inode inode, Attributes* out) const;
  int StatContent(const Place& place, Inode inode, Attributes* out) const;

  const snapshot::SnapshotStore& store_;
  const SessionOptions& options_;
};

}  // namespace latchkey::mount
