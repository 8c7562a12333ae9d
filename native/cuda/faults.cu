// Faults in the words of the CPU backend, which finds the same mistakes before it computes.
#include <string>
#include <string_view>

#include "cuda/faults.h"
#include "cuda/op-functions.h"
#include "ops/softmax-attention.h"

namespace linattn::cuda {
namespace {

const char* word_of(FaultName name, std::string_view op) {
  switch (name) {
    case FaultName::kRows:
      return "rows";
    case FaultName::kReadSlots:
      return "sequences.readSlots";
    case FaultName::kWriteSlots:
      return "sequences.writeSlots";
    case FaultName::kPositions:
      return op == SoftmaxAttention::kName ? "positions" : "sequences.positions";
    case FaultName::kCheckpointSlots:
      return "checkpoints.slots";
    case FaultName::kTableRows:
      return "tableRows";
    case FaultName::kPageTable:
      return "pageTable";
    case FaultName::kIds:
      return "ids";
    case FaultName::kTokens:
      return "tokens";
    case FaultName::kFrom:
      return "from";
    case FaultName::kTo:
      return "to";
    case FaultName::kLogits:
      return "logits";
    case FaultName::kOffsets:
      return "offsets";
    case FaultName::kSequenceOffsets:
      return "sequences.offsets";
  }
  return "input";
}

std::string element(const char* name, int64_t i) { return std::string(name) + "[" + std::to_string(i) + "]"; }

std::string message_of(const Fault& fault, std::string_view op) {
  const auto name = static_cast<FaultName>(fault.name);
  const std::string at = element(word_of(name, op), fault.index);
  const std::string value = std::to_string(fault.value), low = std::to_string(fault.low);
  const std::string limit = std::to_string(fault.limit), got = ", got " + value;
  switch (static_cast<FaultKind>(fault.kind)) {
    case FaultKind::kRange:
      if (name == FaultName::kPositions) {
        return at + (op == SoftmaxAttention::kName ? " must not be negative" : " must be 0 or more") + got;
      }
      return at + " must be in [" + low + ", " + limit + ")" + got;
    case FaultKind::kFromTo:
      return at + " must be from " + low + " to " + limit + got;
    case FaultKind::kBetween:
      return at + " must be in [" + low + ", " + limit + "]" + got;
    case FaultKind::kBelow:
      return at + " must be below " + limit + " and at least -1" + got;
    case FaultKind::kTwice:
      return at + ": slot " + value + " is written twice";
    case FaultKind::kRepeats:
      return at + " repeats slot " + value;
    case FaultKind::kInBoth:
      return "slot " + value + " is in both from and to";
    case FaultKind::kReadAndWritten:
      if (name == FaultName::kReadSlots) return at + ": slot " + value + " is written by row " + low;
      return element(word_of(FaultName::kReadSlots, op), fault.low) + ": slot " + value + " is written by " +
             word_of(name, op);
    case FaultKind::kOffsets:
      if (name == FaultName::kSequenceOffsets) return at + " must rise from 0 to the " + limit + " tokens" + got;
      return element("offsets", int64_t{fault.index} + 1) + " must be in [" + element("offsets", fault.index) + ", " +
             limit + "]" + got + " after " + low;
    case FaultKind::kTooFew:
      if (name == FaultName::kPageTable) {
        return "sequence " + std::to_string(fault.index) + " needs " + limit + " pages at position " + low +
               ", pageTable has " + value + " a row";
      }
      return std::string(word_of(name, op)) + " must have an entry for each of the " + limit + " positions" + got;
    case FaultKind::kPage:
      return at + "[" + std::to_string(fault.column) + "] must be a page in [0, " + limit + ") for the tokens from " +
             low + " of sequence " + std::to_string(fault.sequence) + got;
    case FaultKind::kStepRow:
      return "rows must be below " + limit + got;
    case FaultKind::kInvalid:
      return at + " must hold no NaN and no +inf";
    case FaultKind::kNoToken:
      return at + " must leave a token to choose";
    case FaultKind::kNone:
      break;
  }
  return "an input holds a value that it must not have";
}

}  // namespace

std::shared_ptr<const Error> error_of(Fault* reports) {
  std::string message;
  for (int op = 0; op < kOpCount; op++) {
    if (reports[op].kind == 0) continue;
    message += (message.empty() ? "" : "; ") + std::string(op_name(op)) + ": " + message_of(reports[op], op_name(op));
    reports[op].kind = 0;
  }
  return message.empty() ? nullptr : std::make_shared<const Error>("ERR_ARGUMENT", message);
}

}  // namespace linattn::cuda
