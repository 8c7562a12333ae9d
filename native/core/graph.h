// A list of recorded commands that runs again with one call. What its ops make lives in the graph's own arena, so the
// addresses never move while it lives. Zeros keep memory of their own: a replay does not clear them, and they may
// outlive the graph.
#pragma once
#include <memory>
#include <unordered_set>
#include <utility>
#include <vector>

#include "core/queue.h"

namespace linattn {

class Graph {
 public:
  explicit Graph(std::shared_ptr<Environment> owner) : owner_(std::move(owner)) {}

  // Recording, on the JavaScript thread.
  void op(int index, const double* fields, size_t count);
  void made(double id, Storage* storage) {
    made_.push_back(id);
    storages_.insert(storage);
  }
  void viewed(double id) { made_.push_back(id); }
  // True when the handle was made in this recording: its memory is free again from here on.
  bool release(double id);

  // Queue thread. The first replay runs the commands one by one (a device loads code and makes room meanwhile); the
  // second one has the device keep them as a graph of its own, if it can, and from then on a replay is one launch.
  void compile(Device& device, TensorTable& table);
  void replay(Device& device);
  void destroy(Device& device, TensorTable& table);

 private:
  std::shared_ptr<Environment> owner_;
  std::vector<double> records_;                      // op records with header, as in the queue
  std::vector<std::pair<size_t, double>> releases_;  // offset into records_ before which a made tensor ends
  std::vector<double> made_;                         // handles, of views too
  std::unordered_set<Storage*> storages_;            // made in the recording
  std::vector<double> held_;                         // handles from outside
  std::unordered_set<Storage*> outside_;             // that commands name, by a handle or by a view of the recording
  bool record(Device& device);
  bool launch(Device& device);

  void* arena_ = nullptr;
  size_t arena_bytes_ = 0;
  void* kept_ = nullptr;  // the device's graph
  bool warm_ = false;     // every command ran once
  bool recordable_ = true;
  uint64_t commands_ = 0;
};

}  // namespace linattn
