#include "core/op-table.h"

#include <cstring>
#include <exception>
#include <new>

#include "ops/op-list.h"

namespace linattn {
namespace {

struct List {
  std::vector<FieldInfo> fields;
  void in(const char* name, Tensor&) { fields.push_back({name, FieldKind::kIn}); }
  void optional(const char* name, Tensor&) { fields.push_back({name, FieldKind::kOptional}); }
  void inout(const char* name, Tensor&) { fields.push_back({name, FieldKind::kInOut}); }
  void out(const char* name, Tensor&) { fields.push_back({name, FieldKind::kOut}); }
  template <class T>
  void number(const char* name, T&) {
    fields.push_back({name, FieldKind::kNumber});
  }
};

template <int Index, class Op>
bool execute(const double* record, Device& device, TensorTable& table) {
  Unpack unpack(record, device, table);
  std::shared_ptr<const Error> error;
  try {
    Op op;
    op.visit(unpack);
    error = unpack.taint;
    if (!error) {
      device.run(Index, &op);
      device.commands.fetch_add(1, std::memory_order_relaxed);
    }
  } catch (const Error& e) {
    error = std::make_shared<Error>(e.code, e.what());
  } catch (const std::bad_alloc&) {
    error = std::make_shared<Error>("ERR_OUT_OF_MEMORY", std::string(Op::kName) + ": no host memory left");
  } catch (const std::exception& e) {
    error = std::make_shared<Error>("ERR_DEVICE", std::string(Op::kName) + ": " + e.what());
  }
  if (error) unpack.taint_written(error);
  return !error;
}

template <int Index, class Op>
OpInfo describe() {
  Op op;
  List list;
  op.visit(list);
  return {Op::kName, list.fields, &execute<Index, Op>};
}

enum : int {
#define LINATTN_INDEX(Op) kIndexOf##Op,
  LINATTN_OPS(LINATTN_INDEX)
#undef LINATTN_INDEX
};

}  // namespace

const std::vector<OpInfo>& op_table() {
  static const std::vector<OpInfo> table = {
#define LINATTN_DESCRIBE(Op) describe<kIndexOf##Op, Op>(),
      LINATTN_OPS(LINATTN_DESCRIBE)
#undef LINATTN_DESCRIBE
  };
  return table;
}

void bind(TensorEntry& entry, Device& device) {
  Storage& storage = *entry.storage;
  if (storage.data || storage.bytes == 0) return;
  storage.data = device.allocate(storage.bytes, storage.zeroed, !storage.transactional);
}

Tensor resolve(const TensorEntry& entry) {
  Tensor tensor;
  tensor.data = static_cast<char*>(entry.storage->data) + entry.offset;
  tensor.dtype = entry.dtype;
  tensor.rank = entry.rank;
  for (int i = 0; i < kMaxRank; i++) tensor.shape[i] = entry.shape[i];
  tensor.stride0 = entry.stride0;
  return tensor;
}

}  // namespace linattn
