// Carries finished requests from queue threads to JavaScript: one thread-safe function an environment, referenced only
// while something is awaited, so that an idle process can end.
#pragma once
#include <napi.h>

#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/error.h"

namespace linattn::binding {

struct Completion {
  double request = 0;
  std::shared_ptr<const Error> error;
  std::unique_ptr<char[]> data;  // to be copied into the request's target
  size_t bytes = 0;
};

class Completions {
 public:
  Completions(Napi::Env env, Napi::Function callback);
  ~Completions();

  // JavaScript thread. `target` (may be empty) is kept alive until the request completes.
  void expect(Napi::Env env, double request, Napi::Value target);
  // Any thread.
  void finish(Completion completion);
  // JavaScript thread, at the environment's end: nothing is delivered afterwards.
  void close();
  // JavaScript thread, after close(), once no thread uses what is kept alive any more: lets go of it. The last owner of
  // this may be another thread, after the environment, and may not.
  void forget();

 private:
  static void deliver(napi_env env, napi_value, void* context, void*);
  void call(Napi::Env env, Completion& completion);

  Napi::FunctionReference callback_;
  std::unordered_map<uint64_t, Napi::Reference<Napi::Value>> targets_;
  size_t expected_ = 0;
  napi_threadsafe_function function_ = nullptr;
  std::mutex mutex_;
  std::vector<Completion> finished_;
  bool closed_ = false;
};

}  // namespace linattn::binding
