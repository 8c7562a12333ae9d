// What the native tests of the core check with: a failure is printed and counted, and main returns the count.
#pragma once
#include <cstdio>
#include <string>

namespace linattn {

inline int failures = 0;

inline void check_at(bool holds, const char* condition, const char* file, int line, const std::string& note = "") {
  if (holds) return;
  if (failures++ < 50) std::printf("FAIL %s:%d: %s %s\n", file, line, condition, note.c_str());
}

#define CHECK(condition) ::linattn::check_at(condition, #condition, __FILE__, __LINE__)
#define CHECK_NOTE(condition, note) ::linattn::check_at(condition, #condition, __FILE__, __LINE__, note)

inline int report(const char* name) {
  std::printf("%s: %s\n", name, failures ? "failed" : "ok");
  return failures ? 1 : 0;
}

}  // namespace linattn
