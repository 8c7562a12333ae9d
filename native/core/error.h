// The one exception of the native code. Nothing here prints or aborts; the binding turns it into a LinattnError.
#pragma once
#include <stdexcept>
#include <string>
#include <utility>

namespace linattn {

struct Error : std::runtime_error {
  Error(const char* error_code, std::string message) : std::runtime_error(std::move(message)), code(error_code) {}
  Error(std::string error_code, std::string message)
      : std::runtime_error(std::move(message)), code(std::move(error_code)) {}
  std::string code;  // ERR_SHAPE and so on, as in lib/errors.ts
};

inline void check(bool holds, const char* code, const char* message) {
  if (!holds) throw Error(code, message);
}

}  // namespace linattn
