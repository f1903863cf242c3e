// SPDX-License-Identifier: MIT
// hand_over_files.cpp - the command looks at, makes or removes a UUCP lock file whose name we hold for it.
//
// To the command our file is not there. When it makes its own under that name, by whichever of the known ways (O_EXCL,
// plain O_CREAT, link, symlink, rename), we make it under a private name and rename it over ours; when it removes it,
// ours is renamed back. A rename replaces a name in one step, so to everybody else the name exists all the time. Our
// own file is kept meanwhile under a second, private name.
#include "convention/uucp.hpp"
#include "run/hand_over.hpp"
#include "run/paths.hpp"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

namespace holdfast::run {
namespace {

class FileLending final : public Lending {
 public:
  FileLending(const convention::MarkView& mark, const Surroundings& surroundings)
      : ours_{mark.inode}, surroundings_{surroundings} {
    const SplitPath first = split(mark.files.front());
    path_ = first.directory;
    directory_.reset(::open(path_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    struct stat status{};
    if (directory_ && ::fstat(directory_.get(), &status) == 0) directory_id_ = {status.st_dev, status.st_ino};
    const std::string prefix = ".holdfast-" + std::to_string(surroundings.command.pid);
    for (const std::string& file : mark.files) {
      const std::string name = split(file).name;
      files_.push_back({name, prefix + "-ours." + name, prefix + "-new." + name, false});
    }
  }

  std::optional<Answer> consider(const Question& question, const Caller& caller) override {
    const auto call = path_call_of(question);
    if (!call) return std::nullopt;
    File* const file = named(call->path, caller);
    if (call->verb == PathCall::Verb::link || call->verb == PathCall::Verb::rename) {
      File* const existing = named(*call->other, caller);
      if (existing != nullptr && file == nullptr) return move_away(*existing, *call, caller);
    }
    if (file == nullptr) return std::nullopt;
    const State state = look(*file);
    if (state == State::missing) return Answer::carry_on();
    switch (call->verb) {
      case PathCall::Verb::look:
        return state == State::ours ? Answer::error(ENOENT) : Answer::carry_on();
      case PathCall::Verb::unlink:
        if (state == State::ours) return Answer::error(ENOENT);
        return file->lent ? remove(*file) : Answer::carry_on();
      case PathCall::Verb::open:
        return state == State::ours ? open(*file, question, caller) : Answer::carry_on();
      case PathCall::Verb::link:
      case PathCall::Verb::symlink:
      case PathCall::Verb::rename:
        return state == State::ours ? make_by_name(*file, *call, caller) : Answer::carry_on();
    }
    return Answer::carry_on();
  }

  bool lent() const override { return std::ranges::any_of(files_, &File::lent); }

  void take_back(Clock::time_point) override {
    for (File& file : files_) {
      if (!file.lent) continue;
      const auto found = convention::read_uucp(path_ + "/" + file.name);
      // Removed by a stranger, or left behind by a process of the command that was killed.
      if (!found || found->stale) put_back(file);
    }
  }

  void settle() override {
    for (File& file : files_) {
      if (!file.lent) continue;
      const auto found = convention::read_uucp(path_ + "/" + file.name);
      const bool somebody_lives = found && found->content.kind == convention::UucpContent::Kind::pid && !found->stale &&
                                  found->content.pid != surroundings_.command.pid;
      // A descendant that went its own way keeps what it has locked by itself.
      if (somebody_lives) {
        ::unlinkat(directory_.get(), file.kept.c_str(), 0);
        file.lent = false;
      } else {
        put_back(file);
      }
    }
  }

  void refresh() override {
    for (File& file : files_)
      file.lent = ::faccessat(directory_.get(), file.kept.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) == 0;
  }

  std::vector<std::string> watched() const override { return {}; }

 private:
  struct File {
    std::string name;
    std::string kept;   // ours, while the name is lent
    std::string fresh;  // the command's, until it has the name
    bool lent;
  };
  enum class State : std::uint8_t { missing, ours, somebodys };

  State look(const File& file) const {
    struct stat status{};
    if (::fstatat(directory_.get(), file.name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) return State::missing;
    return device::InodeId{status.st_dev, status.st_ino} == ours_ ? State::ours : State::somebodys;
  }

  File* named(const PathArgument& argument, const Caller& caller) {
    const auto path = caller.path_at(argument.address);
    if (!path) return nullptr;
    const SplitPath parts = split(*path);
    // Almost every path ends here.
    const auto file = std::ranges::find(files_, parts.name, &File::name);
    if (file == files_.end()) return nullptr;
    struct stat status{};
    if (::stat(caller.our_path(argument.directory, parts.directory).c_str(), &status) != 0) return nullptr;
    const bool ours = device::InodeId{status.st_dev, status.st_ino} == directory_id_;
    return ours && caller.still_asks() ? &*file : nullptr;
  }

  // The command's new file is ready as `fresh`: it gets the name.
  int swap_in(File& file) {
    if (const int error = keep_ours(file); error != 0) return error;
    if (::renameat(directory_.get(), file.fresh.c_str(), directory_.get(), file.name.c_str()) != 0)
      return forget_kept(file, errno);
    file.lent = true;
    surroundings_.tell(path_ + "/" + file.name + " handed over");
    return 0;
  }

  int keep_ours(const File& file) const {
    ::unlinkat(directory_.get(), file.kept.c_str(), 0);
    return ::linkat(directory_.get(), file.name.c_str(), directory_.get(), file.kept.c_str(), 0) == 0 ? 0 : errno;
  }

  int forget_kept(const File& file, int error) const {
    ::unlinkat(directory_.get(), file.kept.c_str(), 0);
    ::unlinkat(directory_.get(), file.fresh.c_str(), 0);
    return error;
  }

  void put_back(File& file) {
    if (::renameat(directory_.get(), file.kept.c_str(), directory_.get(), file.name.c_str()) != 0) return;
    file.lent = false;
    surroundings_.tell(path_ + "/" + file.name + " taken back");
  }

  Answer open(File& file, const Question& question, const Caller& caller) {
    const auto call = read_path_call(question, caller);
    if (!call || (call->flags & O_CREAT) == 0) return Answer::error(ENOENT);
    const auto credentials = caller.credentials();
    if (!credentials) return Answer::error(EACCES);
    constexpr int kKept = O_ACCMODE | O_APPEND | O_NONBLOCK | O_SYNC | O_DSYNC;
    ::unlinkat(directory_.get(), file.fresh.c_str(), 0);
    base::UniqueFd made{::openat(directory_.get(), file.fresh.c_str(),
                                 (call->flags & kKept) | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600)};
    if (!made) return Answer::error(errno);
    ::fchmod(made.get(), call->mode & ~credentials->umask & 0777U);
    // Only root's command can have become somebody else, and then we are root.
    if (credentials->uid != ::geteuid() && ::fchown(made.get(), credentials->uid, credentials->gid) != 0) {
      return Answer::error(forget_kept(file, EACCES));
    }
    if (const int error = swap_in(file); error != 0) return Answer::error(error);
    Answer answer;
    answer.kind = Answer::Kind::descriptor;
    answer.fd = std::move(made);
    answer.close_on_exec = (call->flags & O_CLOEXEC) != 0;
    return answer;
  }

  Answer make_by_name(File& file, const PathCall& call, const Caller& caller) {
    const auto text = caller.path_at(call.other->address);
    if (!text) return Answer::error(EFAULT);
    const std::string source = caller.our_path(call.other->directory, *text);
    ::unlinkat(directory_.get(), file.fresh.c_str(), 0);
    if (call.verb == PathCall::Verb::rename) {
      if ((call.flags & (RENAME_EXCHANGE | RENAME_WHITEOUT)) != 0) return Answer::error(ENOENT);
      if (const int error = keep_ours(file); error != 0) return Answer::error(error);
      if (::renameat(AT_FDCWD, source.c_str(), directory_.get(), file.name.c_str()) != 0)
        return Answer::error(forget_kept(file, errno));
      file.lent = true;
      surroundings_.tell(path_ + "/" + file.name + " handed over");
      return Answer::value(0);
    }
    const int made =
        call.verb == PathCall::Verb::symlink
            ? ::symlinkat(text->c_str(), directory_.get(), file.fresh.c_str())
            : ::linkat(AT_FDCWD, source.c_str(), directory_.get(), file.fresh.c_str(), call.flags & AT_SYMLINK_FOLLOW);
    if (made != 0) return Answer::error(errno);
    if (const int error = swap_in(file); error != 0) return Answer::error(error);
    return Answer::value(0);
  }

  Answer remove(File& file) {
    put_back(file);
    return file.lent ? Answer::error(EACCES) : Answer::value(0);
  }

  // link(2) or rename(2) from one of our names to somewhere else.
  std::optional<Answer> move_away(File& file, const PathCall& call, const Caller& caller) {
    const State state = look(file);
    if (state == State::ours) return Answer::error(ENOENT);
    if (call.verb == PathCall::Verb::link || state == State::missing || !file.lent) return Answer::carry_on();
    const auto to = caller.path_at(call.path.address);
    if (!to) return Answer::error(EFAULT);
    ::unlinkat(directory_.get(), file.fresh.c_str(), 0);
    if (::linkat(directory_.get(), file.name.c_str(), directory_.get(), file.fresh.c_str(), 0) != 0)
      return Answer::error(errno);
    put_back(file);
    const std::string target = caller.our_path(call.path.directory, *to);
    const unsigned flags = static_cast<unsigned>(call.flags) & RENAME_NOREPLACE;
    if (::renameat2(directory_.get(), file.fresh.c_str(), AT_FDCWD, target.c_str(), flags) != 0) {
      const int error = errno;
      if (swap_in(file) != 0) ::unlinkat(directory_.get(), file.fresh.c_str(), 0);
      return Answer::error(error);
    }
    return Answer::value(0);
  }

  device::InodeId ours_;
  const Surroundings& surroundings_;
  std::string path_;
  base::UniqueFd directory_;
  device::InodeId directory_id_;
  std::vector<File> files_;
};

}  // namespace

void add_file_hand_overs(Lendings& to, Views marks, const Surroundings& surroundings) {
  for (const convention::MarkView& mark : marks) {
    if (mark.convention == Convention::uucp && !mark.files.empty())
      to.push_back(std::make_unique<FileLending>(mark, surroundings));
  }
}

}  // namespace holdfast::run
