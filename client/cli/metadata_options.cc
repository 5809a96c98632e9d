#include "client/cli/metadata_options.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>

#include "client/cli/names.h"

namespace latchkey::cli {
namespace {

void Set(Metadata* metadata, const std::string& key, const std::string& value) {
  const auto found = std::find_if(metadata->begin(), metadata->end(),
                                  [&](const auto& entry) { return entry.first == key; });
  if (value.empty()) {
    if (found != metadata->end()) metadata->erase(found);
  } else if (found != metadata->end()) {
    found->second = value;
  } else {
    metadata->emplace_back(key, value);
  }
}

Error BadExpiry(const std::string& text) {
  return Error{Errc::kInvalidArgument,
               "expiry \"" + text +
                   "\" is not a date: write 2027-01-31, 2027-01-31T12:00:00Z, seconds since "
                   "1970, or never"};
}

// Exactly `count` digits at `at`.
bool TakeDigits(std::string_view* text, std::size_t count, int* value) {
  if (text->size() < count) return false;
  const auto [end, error] = std::from_chars(text->data(), text->data() + count, *value);
  if (error != std::errc() || end != text->data() + count || text->front() == '-') return false;
  text->remove_prefix(count);
  return true;
}

bool Take(std::string_view* text, char c) {
  if (text->empty() || text->front() != c) return false;
  text->remove_prefix(1);
  return true;
}

// `Z`, `+02:00` or `-02:00`, to the end of the text.
bool TakeOffset(std::string_view* text, std::int64_t* offset_s) {
  *offset_s = 0;
  if (Take(text, 'Z')) return text->empty();
  const bool east = Take(text, '+');
  if (!east && !Take(text, '-')) return false;
  int hours = 0, minutes = 0;
  if (!TakeDigits(text, 2, &hours) || !Take(text, ':') || !TakeDigits(text, 2, &minutes))
    return false;
  if (hours > 18 || minutes > 59 || !text->empty()) return false;
  *offset_s = (east ? 1 : -1) * (hours * 3600 + minutes * 60);
  return true;
}

}  // namespace

void MetadataOptions::AddTo(CLI::App* command) {
  command->add_option("--mode", mode, "file mode on the mount, octal, such as 0440")
      ->type_name("MODE");
  command->add_option("--owner", owner, "user who owns the file on the mount")->type_name("USER");
  command->add_option("--group-name", group, "group of the file on the mount")->type_name("NAME");
  command->add_option("--filename", filename, "file name on the mount, when not the name")
      ->type_name("NAME");
  command
      ->add_option("--metadata", pairs,
                   "further metadata; the key starts with _; an empty value removes it")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  command->add_option("--description", description, "what it is for")->type_name("TEXT");
  command->add_option("--type", type, "a word for what kind it is")->type_name("WORD");
  command
      ->add_option("--expiry", expiry,
                   "when it stops being valid: a date, seconds since 1970, or never")
      ->type_name("WHEN");
}

Result<Metadata> MetadataOptions::ApplyTo(Metadata before) const {
  if (mode) Set(&before, "mode", *mode);
  if (owner) Set(&before, "owner", *owner);
  if (group) Set(&before, "group", *group);
  if (filename) Set(&before, "filename", *filename);
  for (const std::string& pair : pairs) {
    const std::size_t equals = pair.find('=');
    if (equals == std::string::npos || equals == 0) {
      return Error{Errc::kInvalidArgument, "metadata \"" + pair + "\" is not key=value"};
    }
    Set(&before, pair.substr(0, equals), pair.substr(equals + 1));
  }
  RETURN_IF_ERROR(CheckCliMetadata(before));
  return before;
}

Result<std::optional<std::int64_t>> MetadataOptions::ExpirySeconds() const {
  if (!expiry) return std::optional<std::int64_t>();
  ASSIGN_OR_RETURN(const std::int64_t seconds, ParseExpiry(*expiry));
  return std::optional<std::int64_t>(seconds);
}

Result<std::int64_t> ParseExpiry(const std::string& text) {
  if (text == "never") return 0;
  std::int64_t seconds = 0;
  const char* end = text.data() + text.size();
  if (const auto [stop, error] = std::from_chars(text.data(), end, seconds);
      error == std::errc() && stop == end) {
    // A smaller number is a year or a slip rather than a time before 2001.
    constexpr std::int64_t kSmallestTime = 1'000'000'000;
    if (seconds != 0 && seconds < kSmallestTime) return BadExpiry(text);
    return seconds;
  }
  std::string_view rest = text;
  int year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0;
  std::int64_t offset_s = 0;
  if (!TakeDigits(&rest, 4, &year) || !Take(&rest, '-') || !TakeDigits(&rest, 2, &month) ||
      !Take(&rest, '-') || !TakeDigits(&rest, 2, &day)) {
    return BadExpiry(text);
  }
  if (!rest.empty()) {
    if (!Take(&rest, 'T') || !TakeDigits(&rest, 2, &hour) || !Take(&rest, ':') ||
        !TakeDigits(&rest, 2, &minute)) {
      return BadExpiry(text);
    }
    if (Take(&rest, ':') && !TakeDigits(&rest, 2, &second)) return BadExpiry(text);
    if (!TakeOffset(&rest, &offset_s)) return BadExpiry(text);
  }
  const std::chrono::year_month_day date{std::chrono::year(year),
                                         std::chrono::month(static_cast<unsigned>(month)),
                                         std::chrono::day(static_cast<unsigned>(day))};
  if (!date.ok() || hour > 23 || minute > 59 || second > 59 || year < 1970) return BadExpiry(text);
  const auto days = std::chrono::sys_days(date).time_since_epoch();
  return std::chrono::seconds(days).count() + hour * 3600 + minute * 60 + second - offset_s;
}

}  // namespace latchkey::cli
