// SPDX-License-Identifier: MIT
// block_bench.hpp - one program and one device: started beside a claim, caught while it has the device, run under us.
#pragma once

#include "interop/block_programs.hpp"

#include <memory>
#include <string>

namespace holdfast::interop {

class BlockBench {
 public:
  /// `spared` is a child of the test that outlives the bench.
  BlockBench(BlockProgram program, std::string device, pid_t spared = -1);
  BlockBench(const BlockBench&) = delete;
  BlockBench& operator=(const BlockBench&) = delete;
  ~BlockBench();  ///< unmounts, and kills what the program has left behind

  [[nodiscard]] const std::string& device() const { return device_; }
  [[nodiscard]] const BlockProgram& program() const { return program_; }
  [[nodiscard]] const Scratch& scratch() const { return scratch_; }
  [[nodiscard]] bool asks() const { return !program_.refusal.empty(); }

  /// Puts on the disk what must be there first.
  void prepare() const;
  void unmount() const;
  [[nodiscard]] Words command() const { return program_.command(device_, scratch_); }
  [[nodiscard]] Ending run_it() const { return run_to_the_end(command(), program_.input); }
  [[nodiscard]] std::unique_ptr<Program> hold_by_claim() const;
  /// The program while it has the device; nothing when the kernel keeps it.
  [[nodiscard]] std::unique_ptr<Program> hold_by_it() const;
  /// Under run, in a script that goes on until it is told to end.
  [[nodiscard]] std::unique_ptr<Program> script_under_run() const;

  void expect_kept_out(const Ending& one) const;

 private:
  [[nodiscard]] std::unique_ptr<Program> stopped_in_passing() const;

  BlockProgram program_;
  std::string device_;
  pid_t spared_;
  Scratch scratch_;
};

/// Whether somebody has the block device by O_EXCL: looks by trying.
[[nodiscard]] bool is_open_exclusively(const std::string& device);

}  // namespace holdfast::interop
