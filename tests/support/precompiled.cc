// The home of the precompiled Catch2 header that the test executables share.
