// Waiting awake for a short while before sleeping: a wake-up through the kernel costs more than most commands.
#pragma once
#include <chrono>

namespace linattn {

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// True when `ready` became true within about 20 us. Not longer: the cores are shared with JavaScript.
template <class Ready>
bool spin(Ready ready) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(20);
  do {
    for (int i = 0; i < 16; i++) {
      if (ready()) return true;
      relax();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

}  // namespace linattn
