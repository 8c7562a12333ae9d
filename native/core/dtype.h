// Element types. The numbers are part of the op record and of snapshots; lib/tensor/dtype.ts holds the same list.
#pragma once
#include <cstddef>
#include <cstdint>

namespace linattn {

enum class DType : uint8_t {
  kFloat32 = 0,
  kFloat16 = 1,
  kBFloat16 = 2,
  kInt8 = 3,
  kUInt8 = 4,
  kInt32 = 5,
  kInt64 = 6,
  kFloat8E4M3 = 7,  // reserved: no op takes it yet
  kInt4 = 8,        // reserved: no op takes it yet
};

constexpr int kDTypeCount = 7;

constexpr size_t dtype_bytes(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
    case DType::kInt32:
      return 4;
    case DType::kFloat16:
    case DType::kBFloat16:
      return 2;
    case DType::kInt64:
      return 8;
    default:
      return 1;
  }
}

constexpr const char* dtype_name(DType dtype) {
  constexpr const char* kNames[] = {"float32", "float16", "bfloat16", "int8", "uint8",
                                    "int32",   "int64",   "float8",   "int4"};
  return kNames[static_cast<int>(dtype)];
}

// 16-bit floats as their bits, so that kernels can be overloaded on them.
struct float16 {
  uint16_t bits;
};
struct bfloat16 {
  uint16_t bits;
};

}  // namespace linattn
