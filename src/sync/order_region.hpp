// SPDX-License-Identifier: MIT
// order_region.hpp - the memory that an order graph is made of, as it lies in a file or in one process.
//
// Three properties make it safe to die in at any instruction. All zero is a valid empty graph, so making one is a
// matter of a file's size. Everything but `turn` only grows: bits are set, empty slots are filled, and filling one
// twice writes the same. And whatever can be half made (the closure of a new order) is told by `turn` being left taken,
// and can be made again from what is whole.
//
// All members are atomics, because other processes write them. Unless said otherwise accesses are relaxed: what must be
// seen together is ordered by `turn`, acquired and released by those who add (order_turn.hpp).
#pragma once

#include <holdfast/sync/order.hpp>

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace holdfast::sync::order {

using Word = std::atomic<std::uint64_t>;
static_assert(Word::is_always_lock_free && sizeof(Word) == 8);

inline constexpr std::size_t kClasses = kMostClasses;
inline constexpr std::size_t kWitnesses = 8192;
inline constexpr std::size_t kModules = 256;
inline constexpr std::size_t kFrames = 16;
inline constexpr std::uint64_t kMagic = 0x3152444f46480000;  // "HFODR1" and two zeros: version 1
inline constexpr std::size_t kSignals = 64;

// Text in whole words. Writers of one text write the same bytes, so that it does not matter how many do it at once.
template <std::size_t kBytes>
struct Text {
  std::array<Word, kBytes / 8> words;

  void store(std::string_view text) noexcept {
    char bytes[kBytes] = {};
    std::memcpy(bytes, text.data(), text.size() < kBytes ? text.size() : kBytes - 1);
    for (std::size_t i = 0; i < words.size(); ++i) {
      std::uint64_t word = 0;
      std::memcpy(&word, bytes + 8 * i, 8);
      words[i].store(word, std::memory_order_relaxed);
    }
  }
  // `to` gets a terminated string whatever the file holds.
  void load(char (&to)[kBytes]) const noexcept {
    for (std::size_t i = 0; i < words.size(); ++i) {
      const std::uint64_t word = words[i].load(std::memory_order_relaxed);
      std::memcpy(to + 8 * i, &word, 8);
    }
    to[kBytes - 1] = '\0';
  }
};

// A class has two nodes: arrived at by a wait that readers inside do not prolong (recursive read), or by any other.
// Edges leave them by how the class is held: see Edge.
inline constexpr std::size_t kNodes = 2 * kClasses;
using Node = std::uint32_t;

struct Row {
  std::array<Word, kNodes / 64> words;
};

struct ClassRecord {
  Word named;          // 1 when `name` is whole; released by the writer, acquired by readers
  Word handler_plain;  // signals in whose handlers it is waited for, bit s-1; each by node
  Word handler_recursive;
  Word open_exclusive;  // signals that could come while it was held; each by how it was held
  Word open_shared;
  Text<56> name;
};

// Where a class was taken while another was held, or in a handler, or while a signal could come. The first time it was.
struct Witness {
  Word key;      // WitnessKey; set last
  Word who;      // process << 32 | thread
  Word held_at;  // a place: module << 48 | offset
  Word frames;   // how many of `stack` count
  Text<16> program;
  std::array<Word, kFrames> stack;
  std::array<Word, 2> reserved;
};
static_assert(sizeof(Witness) == 192);

struct Module {
  Word key;  // hash of the path; 0 while empty
  Word named;
  Text<112> path;  // its last 111 bytes
};

struct Region {
  Word magic;
  Word turn;     // 0, or the token of who adds to the graph now
  Word classes;  // how many of `keys` are taken, or a little less
  Word modules;
  Word orders;
  Word handler_signals;  // signals that any class knows of in handler_*
  Word witness_count;    // of `witnesses`, taken from the front so that few pages are touched
  std::array<Word, 1> reserved;
  std::array<Word, kClasses> keys;  // taken from the front, each by a compare-and-swap from 0
  std::array<ClassRecord, kClasses> records;
  std::array<Word, kClasses / 64> recursive;  // classes that were waited for by recursive readers
  std::array<Row, kNodes> direct;             // [x] has y: x was held, y was waited for
  // Transitive closure of `direct`. A class's second node has no row until something arrives there: see `recursive`.
  std::array<Row, kNodes> reach;
  std::array<std::atomic<std::uint16_t>, 2 * kWitnesses> witness_index;  // hash table of number + 1
  std::array<Witness, kWitnesses> witnesses;
  std::array<Module, kModules> module;
};

}  // namespace holdfast::sync::order
