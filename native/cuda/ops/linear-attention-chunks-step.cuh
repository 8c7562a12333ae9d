// What the warps of a block of the scan do with one chunk.
#pragma once
#include "cuda/ops/linear-attention-chunks-state.cuh"

namespace linattn::cuda::chunks {

template <class Traits>
__device__ __forceinline__ void ScanBlock<Traits>::decay_state(const float* gates) {
#pragma unroll
  for (int i = 0; i < Traits::kParts; i++) {
    const int c0 = (part * Traits::kParts + i) * kBlock;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float2 gate;
      if constexpr (Traits::kChannels) {
        gate = *reinterpret_cast<const float2*>(gates + c0 + half * 8 + 2 * p);
      } else {
        gate.x = gate.y = gates[2 * kTokens];
      }
#pragma unroll
      for (int e = 0; e < 4; e++) state[i][half][e] *= e % 2 ? gate.y : gate.x;
    }
  }
}

template <class Traits>
__device__ __forceinline__ void ScanBlock<Traits>::run_chunk(int c, const char* stage) {
  constexpr LinearRule rule = Traits::rule;
  constexpr RecordLayout record = Traits::record;
  const char* given = stage + Traits::stage.given();
  const char* query = Traits::kChannels ? given + record.tile(kQuery) : stage;
  const char* write = Traits::kChannels ? given + record.tile(kWrite) : stage + kKeys;
  const char* read = Traits::kChannels ? given + record.tile(kRead) : stage + kKeys;
  const auto* gates = reinterpret_cast<const float*>(given + record.gate());
  char* states = memory + 2 * Traits::stage.bytes() + group * (K / kBlock + kBlocks) * 512;
  char* values = states + K / kBlock * 512;
  const auto matrix = [&](Fragment& to, Matrix which, int i, int j) {
    load_block(to, given + record.matrix(which) + lower_index(i, j) * 512, lane);
  };
  if constexpr (kSplit > 1) {
#pragma unroll
    for (int i = 0; i < Traits::kParts; i++) {
      Fragment x;
      pack_block(x, state[i]);
      store_block(states + (part * Traits::kParts + i) * 512, lane, x);
    }
    group_barrier<Traits::kGroups, kSplit * kWarp>(group);
  }

  // The state before the chunk, read by queries and keys.
  Sums out[Traits::kOwn], told[Traits::kOwn];
#pragma unroll
  for (int own = 0; own < Traits::kOwn; own++) {
#pragma unroll
    for (int e = 0; e < 8; e++) out[own][e / 4][e % 4] = told[own][e / 4][e % 4] = 0.0f;
  }
#pragma unroll
  for (int i = 0; i < K / kBlock; i++) {
    Fragment x, y;
    if constexpr (kSplit == 1) {
      pack_block(x, state[i]);
    } else {
      load_block(x, states + i * 512, lane);
    }
#pragma unroll
    for (int own = 0; own < Traits::kOwn; own++) {
      load_tile_block(y, query, own_block(own) * kBlock, i * kBlock, lane);
      multiply(out[own], y, x);
      if constexpr (rule != LinearRule::kAdditive) {
        load_tile_block(y, read, own_block(own) * kBlock, i * kBlock, lane);
        multiply(told[own], x, y);
      }
    }
  }

  if constexpr (Traits::kAlone) __syncthreads();  // for q k', which other warps made

  // What is written: v of additive, v' of delta, c of lowRank; for scalar decays also with the decay until the end.
  Fragment updates[kBlocks], late_updates[kBlocks];
  Fragment given_values[rule == LinearRule::kDelta ? 1 : kBlocks];
  if constexpr (rule != LinearRule::kDelta) {
#pragma unroll
    for (int j = 0; j < kBlocks; j++) load_values(given_values[j], stage, j);
  }
  const auto decay_values = [&](Fragment& to, const Sums& x, int block) {
    Sums late;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const float2 by = *reinterpret_cast<const float2*>(gates + kTokens + block * kBlock + half * 8 + 2 * p);
#pragma unroll
      for (int e = 0; e < 4; e++) late[half][e] = x[half][e] * (e % 2 ? by.y : by.x);
    }
    pack_block(to, late);
  };
  if constexpr (rule == LinearRule::kAdditive) {
#pragma unroll
    for (int j = 0; j < kBlocks; j++) {
      Sums x;
#pragma unroll
      for (int r = 0; r < 4; r++) {
        updates[j][r] = given_values[j][r];
        x[r / 2][r % 2 * 2] = low_of(updates[j][r]);
        x[r / 2][r % 2 * 2 + 1] = high_of(updates[j][r]);
      }
      if constexpr (!Traits::kChannels) decay_values(late_updates[j], x, j);
    }
  } else {
    const auto* large = reinterpret_cast<const float*>(given + record.large());
    const char* rest = call.record(row.slot + c, head, record.bytes()) + record.rest();
    Fragment wanted[kBlocks];  // by all warps of the group, so that each solves for all tokens
#pragma unroll
    for (int own = 0; own < Traits::kOwn; own++) {
      const int block = own_block(own);
      Fragment v;
      if constexpr (rule == LinearRule::kDelta) {
        load_values(v, stage, block);
#pragma unroll
        for (int half = 0; half < 2; half++) {
          float2 gate = make_float2(1.0f, 1.0f);
          if constexpr (!Traits::kChannels) {
            gate = *reinterpret_cast<const float2*>(gates + block * kBlock + half * 8 + 2 * p);
          }
#pragma unroll
          for (int low = 0; low < 2; low++) {
            const uint32_t two = v[half * 2 + low];
            float* at = told[own][half] + low * 2;
            at[0] = low_of(two) - gate.x * at[0];
            at[1] = high_of(two) - gate.y * at[1];
          }
        }
      } else {
#pragma unroll
        for (int j = 0; j < kBlocks; j++) {
          if (j > block) continue;
          matrix(v, kLow, block, j);
          multiply(told[own], given_values[j], v);
        }
      }
      if constexpr (kSplit == 1) {
        pack_block(wanted[own], told[own]);
      } else {
        pack_block(v, told[own]);
        store_block(values + block * 512, lane, v);
      }
    }
    if constexpr (kSplit > 1) {
      group_barrier<Traits::kGroups, kSplit * kWarp>(group);
#pragma unroll
      for (int j = 0; j < kBlocks; j++) load_block(wanted[j], values + j * 512, lane);
    }
#pragma unroll
    for (int i = 0; i < kBlocks; i++) {
      Sums x = {};
#pragma unroll
      for (int j = 0; j <= i; j++) {
        Fragment y;
        matrix(y, kSolve, i, j);
        multiply(x, wanted[j], y);
      }
      if (large[i] != 0.0f) {
#pragma unroll
        for (int j = 0; j <= i; j++) {
          Fragment y;
          load_block(y, rest + lower_index(i, j) * 512, lane);
          multiply(x, wanted[j], y);
        }
      }
      pack_block(updates[i], x);
      if constexpr (!Traits::kChannels) decay_values(late_updates[i], x, i);
    }
  }

  const Chunk chunk = chunk_of(row, c);
#pragma unroll
  for (int own = 0; own < Traits::kOwn; own++) {
    const int block = own_block(own);
    if constexpr (!Traits::kChannels) {
#pragma unroll
      for (int low = 0; low < 2; low++) {
        const float gate = gates[block * kBlock + g + low * 8];
#pragma unroll
        for (int half = 0; half < 2; half++) {
          out[own][half][low * 2] *= gate;
          out[own][half][low * 2 + 1] *= gate;
        }
      }
    }
#pragma unroll
    for (int j = 0; j < kBlocks; j++) {
      if (j > block) continue;
      Fragment y;
      matrix(y, kOut, block, j);
      if constexpr (rule == LinearRule::kLowRank) {
        multiply(out[own], y, given_values[j]);
        matrix(y, kOutLow, block, j);
      }
      multiply(out[own], y, updates[j]);
    }
    store_out(chunk, block, out[own]);
  }

  decay_state(gates);
#pragma unroll
  for (int i = 0; i < Traits::kParts; i++) {
    const int c0 = (part * Traits::kParts + i) * kBlock;
#pragma unroll
    for (int j = 0; j < kBlocks; j++) {
      Fragment y;
      load_tile_block_transposed(y, write, j * kBlock, c0, lane);
      if constexpr (rule == LinearRule::kLowRank) {
        multiply(state[i], given_values[j], y);
        load_tile_block_transposed(y, given + record.tile(kWriteLow), j * kBlock, c0, lane);
      }
      multiply(state[i], Traits::kChannels ? updates[j] : late_updates[j], y);
    }
  }
}

}  // namespace linattn::cuda::chunks
