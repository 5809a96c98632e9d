#include "common/base/result.h"

#include <cerrno>

namespace latchkey {

const char* ErrcName(Errc code) {
  switch (code) {
    case Errc::kInvalidArgument:
      return "invalid_argument";
    case Errc::kTooLarge:
      return "too_large";
    case Errc::kUnauthenticated:
      return "unauthenticated";
    case Errc::kPermissionDenied:
      return "permission_denied";
    case Errc::kNotFound:
      return "not_found";
    case Errc::kForbidden:
      return "forbidden";
    case Errc::kConflict:
      return "conflict";
    case Errc::kUnavailable:
      return "unavailable";
    case Errc::kCorrupt:
      return "corrupt";
    case Errc::kInternal:
      return "internal";
  }
  INVARIANT(false);
}

int HttpStatusOf(Errc code) {
  switch (code) {
    case Errc::kInvalidArgument:
      return 400;
    case Errc::kTooLarge:
      return 413;
    case Errc::kUnauthenticated:
      return 401;
    case Errc::kPermissionDenied:
      return 403;
    case Errc::kNotFound:
      return 404;
    case Errc::kForbidden:
      return 403;
    case Errc::kConflict:
      return 409;
    case Errc::kUnavailable:
      return 503;
    case Errc::kCorrupt:
      return 500;
    case Errc::kInternal:
      return 500;
  }
  INVARIANT(false);
}

int ErrnoOf(Errc code) {
  switch (code) {
    case Errc::kInvalidArgument:
      return EINVAL;
    case Errc::kTooLarge:
      return EFBIG;
    case Errc::kUnauthenticated:
      return EACCES;
    case Errc::kPermissionDenied:
      return EACCES;
    case Errc::kNotFound:
      return ENOENT;
    case Errc::kForbidden:
      return EACCES;
    case Errc::kConflict:
      return EIO;
    case Errc::kUnavailable:
      return EIO;
    case Errc::kCorrupt:
      return EIO;
    case Errc::kInternal:
      return EIO;
  }
  INVARIANT(false);
}

int ExitCodeOf(Errc code) {
  switch (code) {
    case Errc::kInvalidArgument:
      return 2;
    case Errc::kTooLarge:
      return 2;
    case Errc::kUnauthenticated:
      return 3;
    case Errc::kPermissionDenied:
      return 4;
    case Errc::kNotFound:
      return 5;
    case Errc::kForbidden:
      return 4;
    case Errc::kConflict:
      return 6;
    case Errc::kUnavailable:
      return 7;
    case Errc::kCorrupt:
      return 8;
    case Errc::kInternal:
      return 1;
  }
  INVARIANT(false);
}

}  // namespace latchkey
