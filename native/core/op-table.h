// The ops as the core sees them: name, ordered fields, and a function that unpacks a record and runs it.
#pragma once
#include <memory>
#include <vector>

#include "core/device.h"
#include "core/op-fields.h"
#include "core/tensor-table.h"

namespace linattn {

struct FieldInfo {
  const char* name;
  FieldKind kind;
};

struct OpInfo {
  const char* name;
  std::vector<FieldInfo> fields;
  // `record`: one double a field. Never throws: a failure taints what the command would have written. False when the
  // command did not run.
  bool (*execute)(const double* record, Device& device, TensorTable& table);
};

const std::vector<OpInfo>& op_table();

// Binds the storage of a handle when it has no memory yet.
void bind(TensorEntry& entry, Device& device);
Tensor resolve(const TensorEntry& entry);

// Visitor that reads a record into an op struct.
class Unpack {
 public:
  Unpack(const double* record, Device& device, TensorTable& table) : record_(record), device_(device), table_(table) {}

  void in(const char*, Tensor& tensor) { read(tensor); }
  void optional(const char*, Tensor& tensor) { read(tensor); }
  void inout(const char*, Tensor& tensor) {
    Storage* storage = read(tensor);
    if (storage && !storage->transactional) written_.push_back(storage);
  }
  void out(const char*, Tensor& tensor) {
    const double id = *record_++;
    if (id == 0) return;
    TensorEntry& entry = table_.entry(id);
    entry.storage->taint.reset();
    written_.push_back(entry.storage);
    if (taint) return;
    bind(entry, device_);
    tensor = resolve(entry);
  }
  template <class T>
  void number(const char*, T& value) {
    value = from_double<T>(*record_++);
  }

  void taint_written(const std::shared_ptr<const Error>& error) {
    for (Storage* storage : written_) storage->taint = error;
  }

  std::shared_ptr<const Error> taint;  // of an input: the command is skipped

 private:
  Storage* read(Tensor& tensor) {
    const double id = *record_++;
    if (id == 0) return nullptr;
    TensorEntry& entry = table_.entry(id);
    if (entry.storage->taint && !taint) taint = entry.storage->taint;
    if (!taint) {
      bind(entry, device_);
      tensor = resolve(entry);
    }
    return entry.storage;
  }

  const double* record_;
  Device& device_;
  TensorTable& table_;
  std::vector<Storage*> written_;
};

}  // namespace linattn
