// Module start: one AddonEnvironment for each environment of Node that loads the addon.
#include "binding/addon-environment.h"

namespace linattn::binding {
namespace {

Napi::Object start(Napi::Env env, Napi::Object exports) {
  try {
    env.SetInstanceData<AddonEnvironment>(new AddonEnvironment(env, exports));
  } catch (const Error& error) {
    exports.Set("startError", error.what());
    exports.Set("startErrorCode", error.code);
  }
  return exports;
}

}  // namespace

NODE_API_MODULE(linattn, start)

}  // namespace linattn::binding
