// SPDX-License-Identifier: MIT
// parcel.cpp - see the header.
#include "claim/parcel.hpp"

#include "base/error.hpp"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <utility>

namespace holdfast::claiming {

using convention::Entry;
using convention::MarkView;
using convention::Obstacle;

namespace {

constexpr std::size_t kMostDetail = 1024;  // wire::kMostText

// Lock files are looked at anew by their names, and the driver's owner is a process.
bool travels_in_descriptors(Convention convention) {
  return convention != Convention::uucp && convention != Convention::driver;
}

std::size_t index_of(std::span<const HeldNode> nodes, const device::DeviceId& id) {
  const auto found = std::ranges::find(nodes, id, [](const HeldNode& node) { return node.subject.node.id; });
  return static_cast<std::size_t>(found - nodes.begin());
}

wire::ClaimedNode packed(const HeldNode& node) {
  const auto open = !node.file              ? wire::NodeOpen::closed
                    : node.subject.writable ? wire::NodeOpen::writable
                                            : wire::NodeOpen::read_only;
  return {name_of(node.subject.node), open};
}

wire::ClaimedMark packed(const MarkReport& report, std::size_t node) {
  return {static_cast<std::uint16_t>(node),
          report.convention,
          wire::MarkState::not_available,
          report.detail.substr(0, kMostDetail),
          {},
          0};
}

std::unexpected<Error> not_believed(std::string_view what) {
  return std::unexpected(base::failure(errc::system_fault, fmt::format("a claim handed over {}", what), {}));
}

}  // namespace

wire::DeviceName name_of(const device::Node& node) {
  return {node.path, node.id.kind == device::Kind::block ? wire::NodeKind::block : wire::NodeKind::character,
          node.id.major, node.id.minor, node.id.devpts};
}

bool is_named(const wire::DeviceName& name, const device::Node& node) {
  return (name.kind == wire::NodeKind::block) == (node.id.kind == device::Kind::block) && name.major == node.id.major &&
         name.minor == node.id.minor && name.devpts == node.id.devpts;
}

Parcel pack(const Holding& holding) {
  Parcel parcel;
  const auto nodes = holding.nodes();
  for (const HeldNode& node : nodes) {
    parcel.marks.nodes.push_back(packed(node));
    if (node.file) parcel.descriptors.push_back(node.file.get());
  }
  for (const auto& mark : holding.marks()) {
    if (mark->convention() == Convention::driver) continue;
    MarkView view = mark->view();
    wire::ClaimedMark one;
    one.node = static_cast<std::uint16_t>(index_of(nodes, view.asked.value_or(view.node.id)));
    one.convention = view.convention;
    one.files = std::move(view.files);
    if (travels_in_descriptors(view.convention)) {
      const std::vector<int> own = mark->own_descriptors();
      one.descriptors = static_cast<std::uint8_t>(own.size());
      parcel.descriptors.insert(parcel.descriptors.end(), own.begin(), own.end());
    }
    parcel.marks.marks.push_back(std::move(one));
  }
  for (const MarkReport& report : holding.unavailable()) {
    const auto node =
        std::ranges::find(nodes, report.node, [](const HeldNode& held) { return held.subject.node.path; });
    if (node != nodes.end())
      parcel.marks.marks.push_back(packed(report, static_cast<std::size_t>(node - nodes.begin())));
  }
  return parcel;
}

class Unpacking {
 public:
  Unpacking(const Adoption& adoption, std::vector<base::ProcessFd> descriptors)
      : adoption_{adoption},
        terms_{adoption.options.mode, adoption.owner, adoption.options.purpose, adoption.places},
        descriptors_{std::move(descriptors)} {}

  Result<Holding> unpack(std::vector<device::Device> devices, const wire::Marks& marks) {
    // What is built halfway must be let go of: giving it back would end another process's claim.
    struct LetGo {
      Holding& holding;
      bool done = false;
      ~LetGo() {
        if (!done) holding.let_go();
      }
    };
    Holding holding;
    LetGo otherwise{holding};
    holding.mode_ = adoption_.options.mode;
    holding.devices_ = std::move(devices);
    holding.lay_out(adoption_.options.cover);
    if (auto opened = adopt_nodes(marks, holding); !opened) return std::unexpected(std::move(opened.error()));
    for (const wire::ClaimedMark& mark : marks.marks)
      if (auto adopted = adopt(mark, holding); !adopted) return std::unexpected(std::move(adopted.error()));
    if (next_ != descriptors_.size()) return not_believed("has descriptors that belong to nothing");
    otherwise.done = true;
    return holding;
  }

  Result<> adopt_exclusive(const wire::Marks& marks, Holding& holding) {
    next_ = static_cast<std::size_t>(std::ranges::count_if(
        marks.nodes, [](const wire::ClaimedNode& node) { return node.open != wire::NodeOpen::closed; }));
    for (const wire::ClaimedMark& mark : marks.marks) {
      if (mark.convention == Convention::o_excl && mark.state == wire::MarkState::taken && mark.descriptors > 0) {
        std::erase_if(holding.marks_, [&](const auto& held) {
          const MarkView view = held->view();
          return view.convention == Convention::o_excl && mark.node < marks.nodes.size() &&
                 is_named(marks.nodes[mark.node].device, view.node);
        });
        if (auto adopted = adopt(mark, holding); !adopted) return adopted;
      } else {
        next_ = std::min(next_ + mark.descriptors, descriptors_.size());
      }
    }
    return {};
  }

 private:
  Result<> adopt_nodes(const wire::Marks& marks, Holding& holding) {
    const bool same = std::ranges::equal(marks.nodes, holding.nodes_, [](const auto& claimed, const HeldNode& node) {
      return is_named(claimed.device, node.subject.node);
    });
    if (!same)
      return std::unexpected(base::failure(
          errc::gone, "the claim handed over covers other nodes than are seen here under these numbers", {}));
    for (std::size_t i = 0; i < marks.nodes.size(); ++i) {
      if (marks.nodes[i].open == wire::NodeOpen::closed) continue;
      if (auto opened = adopt_node(marks.nodes[i].open, holding.nodes_[i]); !opened) return opened;
    }
    return {};
  }

  Result<> adopt_node(wire::NodeOpen open, HeldNode& node) {
    if (next_ == descriptors_.size()) return not_believed("lacks a descriptor");
    base::ProcessFd fd = std::move(descriptors_[next_++]);
    if (auto same = device::recheck(fd.get(), node.subject.node); !same) return same;
    const int flags = ::fcntl(fd.get(), F_GETFL);
    const bool writable = (flags & O_ACCMODE) != O_RDONLY;
    if ((flags & O_PATH) != 0 || writable != (open == wire::NodeOpen::writable))
      return not_believed("has a descriptor that is open in another way than it says");
    node.file = std::move(fd);
    node.subject.fd = node.file.get();
    node.subject.writable = writable;
    return {};
  }

  Result<> adopt(const wire::ClaimedMark& mark, Holding& holding) {
    if (mark.node >= holding.nodes_.size()) return not_believed("has a mark of no node");
    const convention::Subject& subject = holding.nodes_[mark.node].subject;
    if (mark.state == wire::MarkState::not_available) {
      holding.unavailable_.push_back(
          {subject.node.path, mark.convention, MarkReport::State::not_available, base::printable(mark.detail)});
      return {};
    }
    if (descriptors_.size() - next_ < mark.descriptors) return not_believed("lacks a descriptor");
    convention::HandedOver given{mark.files, {}, adoption_.locks};
    const auto first = descriptors_.begin() + static_cast<std::ptrdiff_t>(next_);
    std::move(first, first + mark.descriptors, std::back_inserter(given.descriptors));
    next_ += mark.descriptors;
    const Entry& entry = convention::entry(mark.convention);
    if (entry.inapplicable(subject)) return not_believed("has a mark that its device cannot have");
    auto taken = entry.adopt(subject, terms_, given);
    if (taken) {
      holding.marks_.push_back(std::move(*taken));
      return {};
    }
    if (taken.error().kind != Obstacle::Kind::unavailable) return std::unexpected(std::move(taken.error().error));
    holding.unavailable_.push_back(
        {subject.node.path, mark.convention, MarkReport::State::not_available, taken.error().error.message});
    return {};
  }

  const Adoption& adoption_;
  convention::Terms terms_;
  std::vector<base::ProcessFd> descriptors_;
  std::size_t next_ = 0;
};

Result<> adopt_exclusive(Holding& holding, const wire::Marks& marks, std::vector<base::ProcessFd> descriptors,
                         const Adoption& adoption) {
  return Unpacking{adoption, std::move(descriptors)}.adopt_exclusive(marks, holding);
}

Result<Holding> unpack(std::vector<device::Device> devices, const wire::Marks& marks,
                       std::vector<base::ProcessFd> descriptors, const Adoption& adoption) {
  return Unpacking{adoption, std::move(descriptors)}.unpack(std::move(devices), marks);
}

}  // namespace holdfast::claiming
