#include "cuda/emulator/emulator.h"

#ifndef __x86_64__
#include <ucontext.h>
#endif

#include <cstdlib>
#include <memory>
#include <vector>

#include "core/error.h"

#ifdef __x86_64__
// swapcontext saves the signal mask, two system calls a switch; this saves what the calling convention asks for.
extern "C" void linattn_switch_stack(void** from, void* to);
asm(R"(
.text
.type linattn_switch_stack, @function
linattn_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size linattn_switch_stack, . - linattn_switch_stack
)");
#endif

namespace linattn::cuda::emulator {

thread_local Thread* current = nullptr;
thread_local dim3 block_index, block_size, grid_size;
thread_local unsigned char* shared_memory = nullptr;

namespace {

constexpr size_t kStackBytes = size_t{256} << 10, kSmallStackBytes = size_t{64} << 10;
constexpr size_t kExchangeBytes = 64;  // of a lane
constexpr size_t kSharedBytes = size_t{256} << 10;

// Waiting for others: a count that all of them raise.
struct Rendezvous {
  int arrived = 0;
  uint64_t generation = 0;
};

struct Warp {
  Rendezvous meeting;
  int lanes = 0, ended = 0;
  int half = 0;
  unsigned char values[2][32 * kExchangeBytes];
};

// Where a fiber, or the scheduler, goes on.
#ifdef __x86_64__
class Context {
 public:
  void begin(unsigned char* stack, size_t bytes, void (*body)()) {
    auto** top = reinterpret_cast<void**>(reinterpret_cast<uintptr_t>(stack + bytes) / 16 * 16);
    *--top = nullptr;  // where `body` would return to
    *--top = reinterpret_cast<void*>(body);
    at_ = top - 6;  // six registers, of any value
  }
  void switch_to(Context& other) { linattn_switch_stack(&at_, other.at_); }

 private:
  void* at_ = nullptr;
};
#else
class Context {
 public:
  void begin(unsigned char* stack, size_t bytes, void (*body)()) {
    getcontext(&at_);
    at_.uc_stack.ss_sp = stack;
    at_.uc_stack.ss_size = bytes;
    at_.uc_link = nullptr;
    makecontext(&at_, body, 0);
  }
  void switch_to(Context& other) { swapcontext(&at_, &other.at_); }

 private:
  ucontext_t at_{};
};
#endif

struct Fiber {
  Thread thread{};
  Context context;
  std::unique_ptr<unsigned char[]> stack;
  bool ended = false;
  uint64_t cluster_generation = 0;  // in which it came to the cluster's barrier
};

struct Block;

struct Cluster {
  const std::vector<Block*>& blocks;
  size_t arrived = 0;
  uint64_t generation = 0;
};

struct Block {
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  Rendezvous meeting;
  Rendezvous named[16];
  int live = 0;
  Context scheduler;
  size_t running = 0;
  bool moved = false;  // since the last round of the scheduler
  const std::function<void()>* body = nullptr;
  std::exception_ptr failure;
  dim3 index;
  Cluster* cluster = nullptr;
  std::unique_ptr<unsigned char[]> memory{new unsigned char[kSharedBytes + 1024]};

  // `stack`: bytes of a fiber.
  Block(dim3 size, size_t stack_bytes) : stack_bytes_(stack_bytes) {
    fibers.resize(size_t{size.x} * size.y * size.z);
    warps = std::vector<Warp>((fibers.size() + 31) / 32);
    for (size_t i = 0; i < fibers.size(); i++) {
      fibers[i].stack.reset(new unsigned char[stack_bytes]);
      fibers[i].thread.lane = static_cast<int>(i % 32);
      fibers[i].thread.warp = static_cast<int>(i / 32);
      warps[i / 32].lanes++;
    }
  }
  unsigned char* shared() const {
    return reinterpret_cast<unsigned char*>((reinterpret_cast<uintptr_t>(memory.get()) + 1023) / 1024 * 1024);
  }
  size_t stack_bytes() const { return stack_bytes_; }

 private:
  size_t stack_bytes_;
};

thread_local Block* block = nullptr;

}  // namespace

void yield() {
  Block* const own = block;
  Thread* const self = current;
  own->fibers[own->running].context.switch_to(own->scheduler);
  current = self;
}

void progressed() { block->moved = true; }

namespace {

void arrive(Rendezvous& meeting, int threads) {
  block->moved = true;
  if (++meeting.arrived < threads) return;
  meeting.arrived = 0;
  meeting.generation++;
}

void wait(Rendezvous& meeting, int threads) {
  const uint64_t generation = meeting.generation;
  arrive(meeting, threads);
  while (meeting.generation == generation) yield();
}

void run_fiber() {
  Fiber& fiber = block->fibers[block->running];
  try {
    (*block->body)();
  } catch (...) {
    if (!block->failure) block->failure = std::current_exception();
  }
  fiber.ended = true;
  block->live--;
  block->moved = true;
  Warp& warp = block->warps[static_cast<size_t>(fiber.thread.warp)];
  warp.ended++;
  // Threads that have ended no longer count for the barriers of those that go on.
  if (warp.meeting.arrived > 0 && warp.meeting.arrived >= warp.lanes - warp.ended) {
    warp.meeting.arrived = 0;
    warp.meeting.generation++;
  }
  if (block->meeting.arrived > 0 && block->meeting.arrived >= block->live) {
    block->meeting.arrived = 0;
    block->meeting.generation++;
  }
  fiber.context.switch_to(block->scheduler);
}

void begin_block(Block& own, dim3 index, dim3 size, size_t shared, const std::function<void()>& body) {
  own.index = index;
  own.body = &body;
  own.failure = nullptr;
  // Nothing may count on what a block finds in its shared memory.
  std::memset(own.shared(), 0xff, shared);
  for (size_t i = 0; i < own.fibers.size(); i++) {
    const auto at = static_cast<unsigned>(i);
    own.fibers[i].thread.index = dim3(at % size.x, at / size.x % size.y, at / (size.x * size.y));
  }
  own.live = static_cast<int>(own.fibers.size());
  own.meeting = {};
  for (Rendezvous& named : own.named) named = {};
  for (Warp& warp : own.warps) {
    warp.meeting = {};
    warp.ended = 0;
  }
  for (Fiber& fiber : own.fibers) {
    fiber.ended = false;
    fiber.context.begin(fiber.stack.get(), own.stack_bytes(), run_fiber);
  }
}

// Every thread of the block as far as its next wait.
void run_round(Block& own) {
  block = &own;
  block_index = own.index;
  shared_memory = own.shared();
  own.moved = false;
  for (own.running = 0; own.running < own.fibers.size(); own.running++) {
    Fiber& fiber = own.fibers[own.running];
    if (fiber.ended) continue;
    current = &fiber.thread;
    own.scheduler.switch_to(fiber.context);
  }
  if (own.failure) std::rethrow_exception(own.failure);
}

// Until all threads of these blocks have ended.
void run_blocks(const std::vector<Block*>& blocks) {
  for (bool live = true; live;) {
    bool moved = false;
    live = false;
    for (Block* own : blocks) {
      if (own->live == 0) continue;
      run_round(*own);
      moved |= own->moved;
      live |= own->live > 0;
    }
    if (live && !moved) throw Error("ERR_CUDA", "emulator: the threads of a block wait for each other for ever");
  }
}

void check_launch(dim3 size, size_t shared) {
  launches++;
  const size_t threads = size_t{size.x} * size.y * size.z;
  if (threads == 0 || threads > 1024) throw Error("ERR_CUDA", "emulator: a block has 1 to 1024 threads");
  if (shared > shared_bytes()) throw Error("ERR_CUDA", "emulator: too much shared memory");
}

struct Restore {
  Block* outer = block;
  ~Restore() {
    block = outer;
    current = nullptr;
  }
};

}  // namespace

void cluster_arrive() {
  Cluster& cluster = *block->cluster;
  block->fibers[block->running].cluster_generation = cluster.generation;
  block->moved = true;
  if (++cluster.arrived < cluster.blocks.size() * block->fibers.size()) return;
  cluster.arrived = 0;
  cluster.generation++;
}
void cluster_wait() {
  const Cluster& cluster = *block->cluster;
  const Fiber& own = block->fibers[block->running];
  while (cluster.generation == own.cluster_generation) yield();
  block->moved = true;
}
unsigned char* shared_of_block(int rank) { return block->cluster->blocks[static_cast<size_t>(rank)]->shared(); }

void block_barrier() { wait(block->meeting, block->live); }

void named_barrier(int id, int threads) { wait(block->named[id], threads); }
void named_arrive(int id, int threads) { arrive(block->named[id], threads); }

const unsigned char* warp_exchange(const void* value, size_t bytes) {
  Warp& warp = block->warps[static_cast<size_t>(current->warp)];
  if (bytes > kExchangeBytes) throw Error("ERR_CUDA", "emulator: a lane exchanges 64 bytes at most");
  // Two buffers: a lane may begin the next exchange while others still read this one.
  const int half = static_cast<int>(warp.meeting.generation % 2);
  std::memcpy(warp.values[half] + static_cast<size_t>(current->lane) * bytes, value, bytes);
  Thread* self = current;
  wait(warp.meeting, warp.lanes - warp.ended);
  current = self;
  return warp.values[half];
}

void launch(dim3 grid, dim3 size, size_t shared, const std::function<void()>& body) {
  check_launch(size, shared);
  static thread_local std::unique_ptr<Block> kept;
  if (!kept || kept->fibers.size() != size_t{size.x} * size.y * size.z) {
    kept = std::make_unique<Block>(size, kStackBytes);
  }
  const Restore restore;
  grid_size = grid;
  block_size = size;
  for (unsigned z = 0; z < grid.z; z++) {
    for (unsigned y = 0; y < grid.y; y++) {
      for (unsigned x = 0; x < grid.x; x++) {
        begin_block(*kept, dim3(x, y, z), size, shared, body);
        run_blocks({kept.get()});
      }
    }
  }
}

void launch_clusters(dim3 grid, dim3 size, size_t shared, unsigned cluster, const std::function<void()>& body) {
  check_launch(size, shared);
  if (grid.x % cluster != 0) throw Error("ERR_CUDA", "emulator: a grid is made of whole clusters");
  std::vector<std::unique_ptr<Block>> made;
  std::vector<Block*> blocks;
  for (unsigned rank = 0; rank < cluster; rank++) {
    made.push_back(std::make_unique<Block>(size, kSmallStackBytes));
    blocks.push_back(made.back().get());
  }
  const Restore restore;
  grid_size = grid;
  block_size = size;
  for (unsigned z = 0; z < grid.z; z++) {
    for (unsigned y = 0; y < grid.y; y++) {
      for (unsigned x = 0; x < grid.x; x += cluster) {
        Cluster own{blocks};
        for (unsigned rank = 0; rank < cluster; rank++) {
          blocks[rank]->cluster = &own;
          begin_block(*blocks[rank], dim3(x + rank, y, z), size, shared, body);
        }
        run_blocks(blocks);
      }
    }
  }
}

}  // namespace linattn::cuda::emulator
