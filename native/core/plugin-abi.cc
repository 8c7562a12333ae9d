#include "core/plugin.h"
#include "ops/op-list.h"

namespace linattn {
namespace {

constexpr uint64_t kVersion = 2;

// FNV-1a over what the op structs look like from outside.
struct Hash {
  uint64_t value = 14695981039346656037u;
  void add(uint64_t x) { value = (value ^ x) * 1099511628211u; }
  void add(const char* text) {
    for (; *text; text++) add(static_cast<uint64_t>(static_cast<unsigned char>(*text)));
  }
};

template <class Op>
struct Fields {
  Hash& hash;
  const Op& op;
  void field(const char* name, const void* at) {
    hash.add(name);
    hash.add(static_cast<uint64_t>(static_cast<const char*>(at) - reinterpret_cast<const char*>(&op)));
  }
  void in(const char* name, Tensor& tensor) { field(name, &tensor); }
  void optional(const char* name, Tensor& tensor) { field(name, &tensor); }
  void inout(const char* name, Tensor& tensor) { field(name, &tensor); }
  void out(const char* name, Tensor& tensor) { field(name, &tensor); }
  template <class T>
  void number(const char* name, T& value) {
    field(name, &value);
  }
};

template <class Op>
void add_op(Hash& hash) {
  Op op;
  hash.add(Op::kName);
  hash.add(sizeof(Op));
  Fields<Op> fields{hash, op};
  op.visit(fields);
}

}  // namespace

uint64_t plugin_abi() {
  Hash hash;
  hash.add(kVersion);
  hash.add(sizeof(LinattnPlugin));
  hash.add(sizeof(Tensor));
#define LINATTN_HASH(Op) add_op<Op>(hash);
  LINATTN_OPS(LINATTN_HASH)
#undef LINATTN_HASH
  return hash.value;
}

}  // namespace linattn
