#include "tests/integration/net/fixture.h"

namespace latchkey::net {

TEST_CASE("A client with a certificate is answered over TLS 1.2 and 1.3", "[net]") {
  TestServer test;
  test.Start();
  auto options = test.ClientOptionsFor("client");
  options.tls_version = GENERATE(12, 13);
  testing::TlsClient client(options);
  REQUIRE(client.Connect(test.port()));
  CHECK(client.tls_version() == options.tls_version);
  for (int i = 0; i < 3; ++i) {
    const auto response = client.Get("/who");
    CHECK(response.status == 200);
    CHECK(response.body == "cn=client spiffe=");
    CHECK(response.header("x-frame-options") == "DENY");
    CHECK(response.header("x-request-id").size() == 16);
    CHECK(response.headers.count("connection") == 0);
  }
}

}  // namespace latchkey::net
