// What both helper processes do between events. Private to fusefs/wake.
#pragma once

namespace latchkey::wake {

// Waits for a poke, at most `limit_ms`. False: the other end is gone, time to end.
bool WaitForPoke(int socket_fd, int limit_ms);

}  // namespace latchkey::wake
