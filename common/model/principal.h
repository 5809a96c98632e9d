// Principal: who asks, once authenticated. Only server/identity can make one (rule X3); it is made per request (rule T7).
#pragma once

#include <string>

#include "common/model/ids.h"

namespace latchkey::identity {
class Authenticator;
}

namespace latchkey {

class Principal {
 public:
  ClientId client() const { return client_; }
  const std::string& name() const { return name_; }
  bool automation() const { return automation_; }  // may use /automation/*
  bool content() const {
    return content_;
  }  // an automation client needs it to read contents anywhere (rule I5)
  const std::string& address() const { return address_; }

 private:
  friend class identity::Authenticator;
  friend struct PrincipalForTest;  // defined in tests/support only
  Principal(ClientId client, std::string name, bool automation, bool content, std::string address)
      : client_(client),
        name_(std::move(name)),
        automation_(automation),
        content_(content),
        address_(std::move(address)) {}

  ClientId client_;
  std::string name_;
  bool automation_;
  bool content_;
  std::string address_;
};

}  // namespace latchkey
