// How the children of the keeper give up what they do not need (R25, F6).
#pragma once

#include <initializer_list>

#include "common/base/result.h"

namespace latchkey::journal {

// Leaves the process exactly these capabilities (CAP_* numbers), in the bounding set too, and
// NoNewPrivs. Errors: kUnavailable. Call it with one thread, or every thread would need it.
Status KeepCapabilities(std::initializer_list<unsigned> kept);

}  // namespace latchkey::journal
