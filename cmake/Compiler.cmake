# Language level, warnings, hardening (rule P2) and sanitizers. Applied per target by latchkey_compile_options().
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
include(CheckPIESupported)
check_pie_supported()

# -O3 gains nothing measurable here, costs build time, and makes g++ 12 warn about its own string code.
set(CMAKE_C_FLAGS_RELEASE "-O2 -DNDEBUG")
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")

find_program(CCACHE ccache)
if(CCACHE)
  # ccache passes by every file with a precompiled header unless it is told that the header's times do not matter.
  set(launcher ${CMAKE_COMMAND} -E env
    CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${CCACHE})
  set(CMAKE_C_COMPILER_LAUNCHER ${launcher})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${launcher})
endif()

add_library(latchkey_flags INTERFACE)
target_include_directories(latchkey_flags INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_definitions(latchkey_flags INTERFACE LATCHKEY_VERSION="${PROJECT_VERSION}")
target_compile_options(latchkey_flags INTERFACE
  -Wall -Wextra -Werror -Wpedantic -Wshadow -Wnon-virtual-dtor -Wold-style-cast -Wcast-align
  -Woverloaded-virtual -Wimplicit-fallthrough -Wformat=2 -Wvla
  # gcc 12 sees overlaps in std::string at -O3 where there are none (GCC bug 105329).
  $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>
  # For ccache, which preprocesses.
  $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-fpch-preprocess>)
if(LATCHKEY_FUZZ)
  # Coverage of the modules, not only of the target itself: it is what guides the fuzzer.
  target_compile_options(latchkey_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
if(LATCHKEY_SANITIZE)
  string(FIND "${LATCHKEY_SANITIZE}" thread found)
  if(found GREATER -1)
    set(LATCHKEY_SANITIZE_THREAD ON)
  endif()
  # Less time to compile than -O2 -g, and reports still name file and line.
  set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O1 -g1 -DNDEBUG")
  set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O1 -g1 -DNDEBUG")
  target_compile_options(latchkey_flags INTERFACE -fsanitize=${LATCHKEY_SANITIZE} -fno-omit-frame-pointer
    -fno-sanitize-recover=all
    # Fences are not understood by ThreadSanitizer. In fusefs/snapshot they order plain copies of content: a report from there may
    # be false, and a race there may go unseen.
    $<$<AND:$<BOOL:${LATCHKEY_SANITIZE_THREAD}>,$<CXX_COMPILER_ID:GNU>>:-Wno-tsan>)
  target_link_options(latchkey_flags INTERFACE -fsanitize=${LATCHKEY_SANITIZE})
  target_compile_definitions(latchkey_flags INTERFACE LATCHKEY_SANITIZED=1)
else()
  # _FORTIFY_SOURCE needs optimisation; every preset optimises. Sanitizers replace it.
  target_compile_options(latchkey_flags INTERFACE -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 -fstack-protector-strong
    -fstack-clash-protection -fcf-protection)
endif()
target_link_options(latchkey_flags INTERFACE -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack)
