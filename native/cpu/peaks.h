// What this machine can do at most, measured: the yardstick of `linattn bench`. Each call is one timed run of a few
// milliseconds (read_bandwidth: of one pass over the memory) on the threads of the pool; callers take it beside what
// they measure, several times, in turns.
#pragma once
#include <cstddef>

#include "cpu/cpu.h"

namespace linattn::cpu {

// Independent chains of multiply-add in registers. GFLOP/s, two a lane and multiply-add.
double multiply_add_peak(Cpu& cpu);
// The same of dot products of bfloat16 pairs, four a lane. 0 where the level has no such instruction.
double dot_bfloat16_peak(Cpu& cpu);
// Reads and adds up float32 values, 64-byte aligned, each thread a part at a time. GB/s.
double read_bandwidth(Cpu& cpu, const float* values, size_t count);

}  // namespace linattn::cpu
