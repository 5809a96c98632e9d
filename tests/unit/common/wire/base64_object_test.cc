// Reads the object code of the base64 kernels (rule C7).
#include <array>
#include <catch2/catch.hpp>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace {

#ifdef LATCHKEY_SANITIZED
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

struct Instruction {
  std::string address;
  std::string text;
};

std::vector<Instruction> Disassemble(const std::string& object, const std::string& symbol) {
  const std::string command =
      "objdump -d --no-show-raw-insn --disassemble=" + symbol + " '" + object + "' 2>/dev/null";
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), pclose);
  REQUIRE(pipe != nullptr);
  std::vector<Instruction> lines;
  std::array<char, 512> line{};
  bool inside = false;
  while (fgets(line.data(), line.size(), pipe.get()) != nullptr) {
    const std::string text = line.data();
    if (text.find("<" + symbol + ">:") != std::string::npos) {
      inside = true;
      continue;
    }
    const auto colon = text.find(":\t");
    const auto digits = text.find_first_not_of(' ');
    if (!inside || colon == std::string::npos) continue;
    lines.push_back(
        {text.substr(digits, colon - digits), text.substr(colon + 2, text.size() - colon - 3)});
  }
  return lines;
}

// Register names are reduced to their 64-bit family.
std::string Family(std::string name) {
  static const std::map<std::string, std::string> kLegacy = {
      {"al", "rax"},  {"ax", "rax"}, {"eax", "rax"}, {"bl", "rbx"},  {"bx", "rbx"}, {"ebx", "rbx"},
      {"cl", "rcx"},  {"cx", "rcx"}, {"ecx", "rcx"}, {"dl", "rdx"},  {"dx", "rdx"}, {"edx", "rdx"},
      {"sil", "rsi"}, {"si", "rsi"}, {"esi", "rsi"}, {"dil", "rdi"}, {"di", "rdi"}, {"edi", "rdi"},
      {"bpl", "rbp"}, {"bp", "rbp"}, {"ebp", "rbp"}};
  const auto found = kLegacy.find(name);
  if (found != kLegacy.end()) return found->second;
  if (name.size() > 2 && name[0] == 'r' && std::isdigit(static_cast<unsigned char>(name[1])) != 0) {
    while (!name.empty() && std::isdigit(static_cast<unsigned char>(name.back())) == 0)
      name.pop_back();
  }
  return name;
}

std::vector<std::string> Registers(const std::string& operand) {
  std::vector<std::string> found;
  for (std::size_t at = operand.find('%'); at != std::string::npos;
       at = operand.find('%', at + 1)) {
    std::size_t end = at + 1;
    while (end < operand.size() && std::isalnum(static_cast<unsigned char>(operand[end])) != 0)
      ++end;
    found.push_back(Family(operand.substr(at + 1, end - at - 1)));
  }
  return found;
}

std::vector<std::string> Operands(const std::string& instruction) {
  const auto blank = instruction.find_first_of(" \t");
  std::vector<std::string> operands;
  if (blank == std::string::npos) return operands;
  std::string current;
  int depth = 0;
  for (const char c : instruction.substr(blank)) {
    if (c == '#' || c == '<') break;
    if (c == '(') ++depth;
    if (c == ')') --depth;
    if (c == ',' && depth == 0) {
      operands.push_back(current);
      current.clear();
    } else if (c != ' ' && c != '\t') {
      current += c;
    }
  }
  if (!current.empty()) operands.push_back(current);
  return operands;
}

struct Findings {
  int conditional_jumps = 0;
  std::vector<std::string> on_data;  // jumps whose flags come from data
  std::vector<std::string> indexed;  // memory operands whose address holds data
};

// Which registers and stack slots hold data at one point; "flags" stands for the flags.
using Taint = std::set<std::string>;

bool StartsWith(const std::string& text, const char* prefix) {
  return text.compare(0, std::strlen(prefix), prefix) == 0;
}

// What one operand carries: its register, its stack slot, or data, when it is read from memory
// through a pointer.
bool OperandIsData(const std::string& operand, const Taint& taint) {
  if (operand.find('(') == std::string::npos) {
    for (const auto& reg : Registers(operand))
      if (taint.count(reg) != 0) return true;
    return false;
  }
  if (operand.find("(%rip)") != std::string::npos) return false;  // the constant pool
  if (operand.find("(%rsp)") != std::string::npos) return taint.count(operand) != 0;
  return true;
}

// Follows one instruction: where data goes, and whether an address is made of it.
void Step(const std::string& text, const std::string& name, Taint* taint, Findings* findings) {
  const auto operands = Operands(text);
  if (operands.empty() || name == "endbr64" || StartsWith(name, "nop")) return;
  const bool lea = StartsWith(name, "lea");
  bool data = false;
  for (const auto& operand : operands) {
    const bool target_of_move = &operand == &operands.back() && (StartsWith(name, "mov") || lea);
    if (operand.find('(') != std::string::npos) {
      for (const auto& reg : Registers(operand)) {
        if (taint->count(reg) == 0) continue;
        data = data || lea;
        if (!lea) findings->indexed.push_back(text);
      }
    }
    if (!lea && !target_of_move) data = data || OperandIsData(operand, *taint);
  }
  const bool zeroes =
      operands.size() == 2 && operands[0] == operands[1] && name.find("xor") != std::string::npos;
  if (zeroes) data = false;
  const bool keeps_flags =
      StartsWith(name, "mov") || lea || name == "bswap" || name == "push" || name == "pop";
  if (!keeps_flags) data ? (void)taint->insert("flags") : (void)taint->erase("flags");
  if (StartsWith(name, "cmp") || StartsWith(name, "test") || name == "push") return;
  const std::string& target = operands.back();
  std::string place = target;
  if (target.find('(') == std::string::npos) {
    const auto registers = Registers(target);
    if (registers.empty()) return;
    place = registers.front();
  } else if (target.find("(%rsp)") == std::string::npos) {
    return;  // written out through a pointer
  }
  data ? (void)taint->insert(place) : (void)taint->erase(place);
}

// Data flow over the whole function: the parameters are clean, whatever is loaded through a pointer
// is data, and so is what is computed from it. Runs until the states at all jump targets are
// stable.
Findings Examine(const std::vector<Instruction>& code) {
  std::map<std::string, Taint> at_target;
  Findings findings;
  for (bool changed = true; changed;) {
    changed = false;
    findings = {};
    Taint taint;
    for (const auto& [address, text] : code) {
      const auto merged = at_target.find(address);
      if (merged != at_target.end()) taint.insert(merged->second.begin(), merged->second.end());
      const std::string name = text.substr(0, text.find_first_of(" \t"));
      if (name[0] != 'j') {
        Step(text, name, &taint, &findings);
        continue;
      }
      if (name != "jmp") {
        ++findings.conditional_jumps;
        if (taint.count("flags") != 0) findings.on_data.push_back(text);
      }
      const auto begin = text.find_first_not_of(" \t", name.size());
      Taint& state = at_target[text.substr(begin, text.find(' ', begin) - begin)];
      const std::size_t before = state.size();
      state.insert(taint.begin(), taint.end());
      changed = changed || state.size() != before;
      if (name == "jmp") taint.clear();
    }
  }
  return findings;
}

}  // namespace

TEST_CASE("no jump and no address in the base64 kernels depends on the bytes",
          "[wire][constant-time]") {
  if (kSanitized) {
    SUCCEED("sanitizers add their own jumps; the plain builds are examined");
    return;
  }
  for (const std::string symbol :
       {"LatchkeyBase64EncodeSwar", "LatchkeyBase64EncodeSsse3", "LatchkeyBase64DecodeSwar"}) {
    CAPTURE(symbol);
    const auto code = Disassemble(WIRE_OBJECTS, symbol);
    REQUIRE(code.size() > 10);
    const Findings findings = Examine(code);
    CHECK(findings.conditional_jumps >= 1);
    CHECK(findings.on_data.empty());
    CHECK(findings.indexed.empty());
  }
}

TEST_CASE("the reader of object code finds the jumps of a careless encoder",
          "[wire][constant-time]") {
  if (kSanitized) {
    SUCCEED("examined in the plain builds");
    return;
  }
  const auto code = Disassemble(LEAKY_OBJECTS, "LeakyControlEncode");
  REQUIRE(code.size() > 10);
  CHECK_FALSE(Examine(code).on_data.empty());
}
