#include "common/model/ids.h"

#include "common/base/utf8.h"
#include "common/model/limits.h"

namespace latchkey {
namespace {

Status CheckName(std::string_view text) {
  if (text.empty()) return Error{Errc::kInvalidArgument, "name may not be empty"};
  if (text.size() > limits::kMaxNameBytes)
    return Error{Errc::kInvalidArgument,
                 "name is longer than " + std::to_string(limits::kMaxNameBytes) + " bytes"};
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f)
      return Error{Errc::kInvalidArgument, "name holds a control byte"};
  }
  if (!IsValidUtf8(text)) return Error{Errc::kInvalidArgument, "name is not valid UTF-8"};
  return {};
}

std::size_t Utf16Units(std::string_view text) {
  std::size_t units = 0;
  while (!text.empty()) {
    const Utf8Step step = DecodeUtf8(text);
    units += step.code_point > 0xffff ? 2 : 1;
    text.remove_prefix(step.valid ? step.length : 1);
  }
  return units;
}

}  // namespace

template <class Tag>
Result<Name<Tag>> Name<Tag>::Parse(std::string_view text) {
  RETURN_IF_ERROR(CheckName(text));
  return Name(std::string(text));
}
template class Name<SecretNameTag>;
template class Name<ClientNameTag>;
template class Name<GroupNameTag>;

Status CheckNewSecretName(const SecretName& name) {
  if (name.text().front() == '.')
    return Error{Errc::kInvalidArgument, "secret name may not start with a dot"};
  if (Utf16Units(name.text()) > limits::kMaxSecretNameChars)
    return Error{Errc::kInvalidArgument, "secret name is longer than " +
                                             std::to_string(limits::kMaxSecretNameChars) +
                                             " characters"};
  return {};
}

}  // namespace latchkey
