#include "ops/rwkv-keys.h"

#include "cpu/row-tasks.h"
#include "cpu/simd.h"

namespace linattn::cpu {
namespace {

template <class T>
struct RwkvHead {
  const T *r, *k, *a;
  const float *key_scale, *key_mix, *bonus_weight;
  T *read, *write, *key;
  float* bonus;
};

}  // namespace
}  // namespace linattn::cpu

#define LINATTN_KERNELS "cpu/ops/rwkv-keys-kernels.inc"
#include "cpu/for-each-level.inc"

namespace linattn::cpu {

void run(const RwkvKeys& op, Cpu& cpu) {
  const int64_t H = op.k.shape[1], K = op.k.shape[2];
  with_float_type(op.k.dtype, [&]<class T>(T) {
    const auto kernel = LINATTN_DISPATCH(cpu.level, rwkv_keys<T>);
    for_rows(cpu, op.k.shape[0], H * K, [&](int64_t begin, int64_t end, int) {
      for (int64_t t = begin; t < end; t++) {
        for (int64_t h = 0; h < H; h++) {
          const int64_t at = h * K;
          kernel({op.r.row<T>(t) + at, op.k.row<T>(t) + at, op.a.row<T>(t) + at, op.key_scale.as<float>() + at,
                  op.key_mix.as<float>() + at, op.bonus_weight.as<float>() + at, op.read.row<T>(t) + at,
                  op.write.row<T>(t) + at, op.key.row<T>(t) + at, op.bonus.row<float>(t) + h},
                 K);
        }
      }
    });
  });
}

}  // namespace linattn::cpu
