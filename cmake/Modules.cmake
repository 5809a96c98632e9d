include(CTest)

# add_module(NAME SOURCES a.cc ... [DEPS targets] [PRIVATE_DEPS targets] [PRECOMPILE headers])
# One static library per folder. DEPS are our own modules (see tools/check_layers for who may depend on whom);
# third-party libraries are PRIVATE_DEPS.
function(add_module name)
  cmake_parse_arguments(A "" "" "SOURCES;DEPS;PRIVATE_DEPS;PRECOMPILE" ${ARGN})
  add_library(${name} STATIC ${A_SOURCES})
  target_link_libraries(${name} PUBLIC latchkey_flags ${A_DEPS} PRIVATE ${A_PRIVATE_DEPS})
  if(A_PRECOMPILE)
    target_precompile_headers(${name} PRIVATE ${A_PRECOMPILE})
  endif()
endfunction()

# add_program(NAME SOURCES main.cc DEPS targets): a position-independent executable (rule P2).
function(add_program name)
  cmake_parse_arguments(A "" "" "SOURCES;DEPS;PRIVATE_DEPS" ${ARGN})
  add_executable(${name} ${A_SOURCES})
  target_link_libraries(${name} PRIVATE latchkey_flags ${A_DEPS} ${A_PRIVATE_DEPS})
  set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE ON RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
endfunction()

# add_unit_tests(MODULE SOURCES x_test.cc ... [DEPS targets] [LABELS unit]): one Catch2 executable per module.
function(add_unit_tests module)
  cmake_parse_arguments(A "" "" "SOURCES;DEPS;LABELS" ${ARGN})
  if(NOT A_LABELS)
    set(A_LABELS unit)
  endif()
  list(GET A_LABELS 0 first_label)
  set(name ${module}_${first_label}_test)
  add_executable(${name} ${A_SOURCES})
  if(TARGET ${module})
    target_link_libraries(${name} PRIVATE ${module})
  endif()
  target_link_libraries(${name} PRIVATE latchkey_flags tests_support ${A_DEPS} Catch2::Catch2WithMain)
  target_precompile_headers(${name} REUSE_FROM catch2_precompiled)
  target_compile_definitions(${name} PRIVATE TESTS_SOURCE_DIR="${PROJECT_SOURCE_DIR}/tests" BUILD_BIN_DIR="${CMAKE_BINARY_DIR}/bin")
  catch_discover_tests(${name} TEST_PREFIX "${module}: " PROPERTIES LABELS "${A_LABELS}" TIMEOUT 300
    DISCOVERY_MODE PRE_TEST)
endfunction()

# add_fuzz_target(NAME SOURCES x_fuzz.cc DEPS modules): the target defines LLVMFuzzerTestOneInput. With LATCHKEY_FUZZ it becomes a
# libFuzzer program; in every build CTest replays tests/fuzz/corpus/NAME through it, so that a found input stays fixed (Z3).
function(add_fuzz_target name)
  cmake_parse_arguments(A "" "" "SOURCES;DEPS" ${ARGN})
  set(corpus ${PROJECT_SOURCE_DIR}/tests/fuzz/corpus/${name})
  if(LATCHKEY_FUZZ)
    add_executable(${name}_fuzz ${A_SOURCES})
    target_compile_options(${name}_fuzz PRIVATE -fsanitize=fuzzer)
    target_link_options(${name}_fuzz PRIVATE -fsanitize=fuzzer)
  else()
    add_executable(${name}_fuzz ${A_SOURCES} ${PROJECT_SOURCE_DIR}/tests/fuzz/replay_main.cc)
  endif()
  target_link_libraries(${name}_fuzz PRIVATE latchkey_flags ${A_DEPS})
  add_test(NAME "fuzz: ${name} corpus" COMMAND ${name}_fuzz -runs=0 ${corpus})
  set_tests_properties("fuzz: ${name} corpus" PROPERTIES LABELS "unit;fuzz" TIMEOUT 300)
endfunction()
