#include "binding/completions.h"

#include <cstring>

namespace linattn::binding {

Completions::Completions(Napi::Env env, Napi::Function callback) : callback_(Napi::Persistent(callback)) {
  const Napi::String name = Napi::String::New(env, "linattn");
  const napi_status status = napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, this,
                                                             &Completions::deliver, &function_);
  if (status != napi_ok) throw Error("ERR_ADDON", "the addon could not make its thread-safe function");
  napi_unref_threadsafe_function(env, function_);
}

Completions::~Completions() { close(); }

void Completions::close() {
  std::lock_guard lock(mutex_);
  if (closed_) return;
  closed_ = true;
  finished_.clear();
  napi_release_threadsafe_function(function_, napi_tsfn_abort);
}

void Completions::forget() {
  targets_.clear();
  callback_.Reset();
}

void Completions::expect(Napi::Env env, double request, Napi::Value target) {
  if (!target.IsEmpty() && target.IsObject()) {
    targets_[static_cast<uint64_t>(request)] = Napi::Reference<Napi::Value>::New(target, 1);
  }
  if (expected_++ == 0) napi_ref_threadsafe_function(env, function_);
}

void Completions::finish(Completion completion) {
  std::lock_guard lock(mutex_);
  if (closed_) return;
  finished_.push_back(std::move(completion));
  if (finished_.size() == 1) napi_call_threadsafe_function(function_, nullptr, napi_tsfn_nonblocking);
}

void Completions::deliver(napi_env raw, napi_value, void* context, void*) {
  if (!raw) return;
  auto& self = *static_cast<Completions*>(context);
  std::vector<Completion> finished;
  {
    std::lock_guard lock(self.mutex_);
    finished.swap(self.finished_);
  }
  const Napi::Env env(raw);
  try {
    const Napi::HandleScope scope(env);
    for (auto& completion : finished) self.call(env, completion);
  } catch (const Napi::Error&) {
    // The worker is being terminated: no JavaScript runs any more, and nobody waits.
  }
}

void Completions::call(Napi::Env env, Completion& completion) {
  const auto target = targets_.find(static_cast<uint64_t>(completion.request));
  if (target != targets_.end()) {
    if (completion.data) {
      const auto view = target->second.Value().As<Napi::TypedArray>();
      const size_t bytes = std::min(view.ByteLength(), completion.bytes);
      if (bytes > 0)
        std::memcpy(static_cast<char*>(view.ArrayBuffer().Data()) + view.ByteOffset(), completion.data.get(), bytes);
    }
    targets_.erase(target);
  }
  if (--expected_ == 0) napi_unref_threadsafe_function(env, function_);
  Napi::Value code = env.Undefined();
  Napi::Value message = env.Undefined();
  if (completion.error) {
    code = Napi::String::New(env, completion.error->code);
    message = Napi::String::New(env, completion.error->what());
  }
  callback_.Call({Napi::Number::New(env, completion.request), code, message});
}

}  // namespace linattn::binding
