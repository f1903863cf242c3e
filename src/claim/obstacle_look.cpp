// SPDX-License-Identifier: MIT
// obstacle_look.cpp - see the header.
#include "claim/obstacle_look.hpp"

#include "base/unique_fd.hpp"
#include "convention/driver_lock.hpp"
#include "convention/holder.hpp"
#include "convention/proxy.hpp"
#include "convention/uucp.hpp"

#include <fcntl.h>
#include <sys/inotify.h>

#include <algorithm>
#include <cerrno>

namespace holdfast::claiming {
namespace {

// All names that count, whoever makes them; none for a node of no device here.
std::vector<std::string> lock_file_names(const device::Node& node, std::span<const device::Device> devices) {
  const auto device = std::ranges::find(devices, node.id, [](const device::Device& one) { return one.node.id; });
  if (device == devices.end()) return {};
  convention::UucpNames names = convention::uucp_names(*device, node);
  names.create.insert(names.create.end(), names.watch.begin(), names.watch.end());
  return std::move(names.create);
}

// A process's lock file under any of the names. Sharers' files, which are no obstacle to sharers, are left to an
// attempt.
bool lock_file_stands(const device::Node& node, std::span<const device::Device> devices,
                      const convention::Terms& terms) {
  if (terms.mode == Mode::shared) return false;
  return std::ranges::any_of(lock_file_names(node, devices), [&](const std::string& name) {
    const auto file = convention::read_uucp(terms.places.lock_dir + "/" + name);
    return file && !file->stale && file->content.pid != terms.owner.pid;
  });
}

}  // namespace

std::vector<Telling> what_tells(Convention convention, const device::Node& node,
                                std::span<const device::Device> devices, const base::Places& places) {
  switch (convention) {
    case Convention::proxy:
      return {{convention::proxy_path(node.id, places), IN_CLOSE_WRITE | IN_MODIFY | IN_DELETE_SELF}};
    case Convention::ddlp:
      return {{places.tmp, IN_CLOSE_WRITE}};
    case Convention::uucp: {
      // The files themselves: in their directory something happens all the time. A removal of one of its names changes
      // a file's count of links: IN_ATTRIB (inotify(7)).
      std::vector<Telling> tellings;
      for (const std::string& name : lock_file_names(node, devices))
        tellings.push_back(
            {places.lock_dir + "/" + name, IN_ATTRIB | IN_MODIFY | IN_MOVE_SELF | IN_DELETE_SELF | IN_DONT_FOLLOW});
      return tellings;
    }
    case Convention::whole_disk:
    case Convention::flock:
    case Convention::posix:
    case Convention::o_excl:
    case Convention::driver:
    case Convention::tiocexcl:
      break;
  }
  return {{node.path, IN_CLOSE | IN_DELETE_SELF | IN_ATTRIB}};
}

bool seen_to_stand(Convention convention, const device::Node& node, std::span<const device::Device> devices,
                   const convention::Terms& terms) {
  switch (convention) {
    case Convention::uucp:
      return lock_file_stands(node, devices, terms);
    case Convention::flock:
      return convention::shows_lock(node.inode, convention::LockKind::flock, terms.mode, terms.places);
    case Convention::posix:
      return convention::shows_lock(node.inode, convention::LockKind::record, terms.mode, terms.places);
    case Convention::o_excl: {
      if (node.id.kind != device::Kind::block) return false;
      const base::UniqueFd probe{::open(node.path.c_str(), O_RDONLY | O_EXCL | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)};
      return !probe && errno == EBUSY;
    }
    case Convention::driver:
      return convention::driver_owner(node, terms.places).has_value();
    case Convention::proxy:
    case Convention::ddlp:
    case Convention::whole_disk:
    case Convention::tiocexcl:
      return false;
  }
  return false;
}

bool all_there(std::span<const device::Device> devices) {
  return std::ranges::all_of(devices,
                             [](const device::Device& one) { return device::still_there(one.node).has_value(); });
}

}  // namespace holdfast::claiming
