// The addon as one environment of Node sees it. Every function reads its arguments from `record` (a Float64Array shared
// with lib/binding) or takes plain values; a failure is kept for lastError() and told by the returned value, so that no
// error object or typed array is made natively (they would be of another realm under jest).
#pragma once
#include <napi.h>

#include <memory>
#include <unordered_map>

#include "binding/checksums.h"
#include "binding/pin.h"
#include "binding/runtime.h"
#include "binding/tasks.h"

namespace linattn::binding {

class AddonEnvironment {
 public:
  AddonEnvironment(Napi::Env env, Napi::Object exports);
  ~AddonEnvironment();

 private:
  using Info = Napi::CallbackInfo;

  void add_function(Napi::Env env, Napi::Object exports, const char* name,
                    Napi::Value (AddonEnvironment::*method)(const Info&));
  // The number that body returns; on failure the error is kept and -1 returned.
  template <class Body>
  Napi::Value guard(const Info& info, Body&& body) {
    try {
      return Napi::Number::New(info.Env(), body());
    } catch (const Error& error) {
      error_code_ = error.code;
      error_message_ = error.what();
    } catch (const std::bad_alloc&) {
      error_code_ = "ERR_OUT_OF_MEMORY";
      error_message_ = "no host memory left";
    }
    return Napi::Number::New(info.Env(), -1);
  }

  Napi::Value run(const Info& info);
  Napi::Value create(const Info& info);
  Napi::Value view(const Info& info);
  Napi::Value release(const Info& info);
  Napi::Value write(const Info& info);
  Napi::Value write_held(const Info& info);
  Napi::Value pin(const Info& info);
  Napi::Value unpin(const Info& info);
  Napi::Value make_checksum(const Info& info);
  Napi::Value check_checksum(const Info& info);
  Napi::Value copy(const Info& info);
  Napi::Value read(const Info& info);
  Napi::Value wait(const Info& info);
  Napi::Value fence(const Info& info);
  Napi::Value time_begin(const Info& info);
  Napi::Value time_end(const Info& info);
  Napi::Value on_complete(const Info& info);
  Napi::Value capture_begin(const Info& info);
  Napi::Value capture_end(const Info& info);
  Napi::Value replay(const Info& info);
  Napi::Value destroy_graph(const Info& info);
  Napi::Value open_file(const Info& info);
  Napi::Value load_file(const Info& info);
  Napi::Value close_file(const Info& info);
  Napi::Value devices(const Info& info);
  Napi::Value open_cuda(const Info& info);
  Napi::Value memory(const Info& info);
  Napi::Value charge(const Info& info);
  Napi::Value counters(const Info& info);
  Napi::Value set_threads(const Info& info);
  Napi::Value last_error(const Info& info);

  struct Writing {
    double id;
    Device* device;
    size_t offset;
    Napi::TypedArray view;
    const char* data;  // view's
  };
  Writing writing_of(const Info& info);
  struct PinnedBuffer {
    std::shared_ptr<Pin> pin;
    Napi::Reference<Napi::ArrayBuffer> buffer;
  };
  // Whether the data of a buffer is that of one in pins_, which has not gone to another thread.
  bool is_pinned(const Device& device, const void* data) const;
  Napi::Value checksum(const Info& info, Checksums::What what);
  Device& device_at(double index);
  TensorSpec spec_at(const double* at) const;  // dtype, rank, dims...
  double make(const TensorSpec& spec, Device& device, bool zeroed, bool transactional);
  // Tells V8 what tensors hold, where JavaScript is about to wait: what a scope frees again costs no collection.
  void account(Napi::Env env);
  void close();
  void add_ops(Napi::Env env, Napi::Object exports);

  std::shared_ptr<Runtime> runtime_;
  std::shared_ptr<Environment> environment_;
  std::shared_ptr<Completions> completions_;
  std::unique_ptr<Checksums> checksums_;  // from the first one on
  Napi::Reference<Napi::Float64Array> record_;
  double* fields_ = nullptr;  // record_'s memory
  std::string error_code_, error_message_;
  std::shared_ptr<Graph> recording_;
  Device* recording_device_ = nullptr;
  std::vector<double> late_releases_;  // of tensors made before the recording, disposed during it
  std::unordered_map<uint32_t, std::pair<Device*, std::shared_ptr<Graph>>> graphs_;
  std::unordered_map<uint32_t, std::shared_ptr<File>> files_;
  std::unordered_map<uint32_t, PinnedBuffer> pins_;
  uint32_t next_handle_ = 1;
  std::unordered_map<int, int64_t> charged_;  // by device; taken back at the environment's end
  int64_t unaccounted_ = 0;                   // bytes not yet told to V8
};

}  // namespace linattn::binding
