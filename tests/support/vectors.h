// Reads tests/vectors/*.txt: `# source:` and `# generator:` lines, then records `[name]` of `key =
// hex:..|text:..|number|null`. A file without its two heading lines, and a field that no test read,
// fail the test that uses the file.
#pragma once

#include <catch2/catch.hpp>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "common/base/bytes.h"

namespace latchkey::tests {

class VectorRecord {
 public:
  explicit VectorRecord(std::string name) : name_(std::move(name)) {}
  const std::string& name() const { return name_; }
  void Put(const std::string& key, const std::string& value) {
    if (!fields_.emplace(key, value).second) FAIL("field twice: " << name_ << "." << key);
  }

  bool IsNull(const std::string& key) const { return Field(key) == "null"; }
  bool IsNumber(const std::string& key) const {
    return Field(key).find(':') == std::string::npos && !IsNull(key);
  }
  std::string Text(const std::string& key) const { return After(key, "text:"); }
  ByteVector Hex(const std::string& key) const {
    ByteVector out;
    if (!ParseHex(After(key, "hex:"), &out)) FAIL("not hex: " << name_ << "." << key);
    return out;
  }
  template <std::size_t N>
  ByteArray<N> Array(const std::string& key) const {
    const ByteVector bytes = Hex(key);
    if (bytes.size() != N) FAIL("not " << N << " bytes: " << name_ << "." << key);
    ByteArray<N> out{};
    std::copy(bytes.begin(), bytes.end(), out.begin());
    return out;
  }
  std::int64_t Signed(const std::string& key) const { return std::stoll(Field(key)); }
  std::uint64_t Unsigned(const std::string& key) const { return std::stoull(Field(key)); }
  std::vector<std::string> Unread() const {
    std::vector<std::string> out;
    for (const auto& [key, value] : fields_) {
      if (!read_.contains(key)) out.push_back(name_ + "." + key);
    }
    return out;
  }

 private:
  const std::string& Field(const std::string& key) const {
    const auto found = fields_.find(key);
    if (found == fields_.end()) FAIL("no field " << name_ << "." << key);
    read_.insert(key);
    return found->second;
  }
  std::string After(const std::string& key, const std::string& prefix) const {
    const std::string& value = Field(key);
    if (value.rfind(prefix, 0) != 0) FAIL("not " << prefix << " " << name_ << "." << key);
    return value.substr(prefix.size());
  }

  std::string name_;
  std::map<std::string, std::string> fields_;
  mutable std::set<std::string> read_;
};

inline std::vector<VectorRecord> LoadVectors(const std::string& file) {
  std::ifstream in(TESTS_SOURCE_DIR "/vectors/" + file);
  if (!in) FAIL("cannot read vectors/" << file);
  std::vector<VectorRecord> records;
  bool source = false;
  bool generator = false;
  for (std::string line; std::getline(in, line);) {
    if (line.rfind("# source: ", 0) == 0) source = true;
    if (line.rfind("# generator: ", 0) == 0) generator = true;
    if (line.empty() || line.front() == '#') continue;
    if (line.front() == '[') {
      records.emplace_back(line.substr(1, line.size() - 2));
      continue;
    }
    const std::size_t equals = line.find(" = ");
    if (records.empty() || equals == std::string::npos)
      FAIL("bad line in vectors/" << file << ": " << line);
    records.back().Put(line.substr(0, equals), line.substr(equals + 3));
  }
  if (!source || !generator || records.empty())
    FAIL("vectors/" << file << " lacks source, generator or records");
  return records;
}

// Call at the end of the test that is to use every field of `records`.
inline void CheckAllRead(const std::vector<VectorRecord>& records) {
  std::string unread;
  for (const VectorRecord& record : records) {
    for (const std::string& field : record.Unread()) unread += " " + field;
  }
  CHECK(unread == "");
}

inline const VectorRecord& FindVector(const std::vector<VectorRecord>& records,
                                      const std::string& name) {
  for (const VectorRecord& record : records) {
    if (record.name() == name) return record;
  }
  FAIL("no record " << name);
  return records.front();
}

}  // namespace latchkey::tests
