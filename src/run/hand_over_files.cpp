// SPDX-License-Identifier: MIT
// hand_over_files.cpp - the command looks at, makes or removes a UUCP lock file whose name we hold for it.
//
// To the command our file is not there. When it makes its own under that name, by whichever of the known ways (O_EXCL,
// plain O_CREAT, link, symlink, rename), we make it under a private name and rename it over ours; when it removes it,
// ours is linked and renamed back from another of its names. A rename replaces a name in one step, so to everybody else
// the name exists all the time. Private names live for two system calls only: killing all of us leaves nothing strange.
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
      std::string one = prefix;
      std::string other = prefix;
      files_.push_back({name, one.append("-a.").append(name), other.append("-b.").append(name), {}, false});
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
      if (!found || (names_a_process(*found) && found->stale)) put_back(file);
    }
  }

  void settle() override {
    for (File& file : files_) {
      if (look(file) == State::somebodys) {
        remove_left_behind(file);
      } else if (file.remade) {
        ::unlinkat(directory_.get(), file.name.c_str(), 0);  // the claim knows its first file only
      }
      file.lent = false;
    }
  }

  void refresh() override {
    for (File& file : files_) file.lent = look(file) == State::somebodys;
  }

  std::vector<std::string> watched() const override { return {}; }

 private:
  struct File {
    std::string name;
    std::string fresh;                      // a new file, until it gets the name
    std::string aside;                      // an old file, until it is gone
    std::optional<device::InodeId> remade;  // ours, made anew because no name of the claim's file was left to link from
    bool lent;
  };
  enum class State : std::uint8_t { missing, ours, somebodys };

  State look(const File& file) const {
    struct stat status{};
    if (::fstatat(directory_.get(), file.name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) return State::missing;
    const device::InodeId found{status.st_dev, status.st_ino};
    return found == ours_ || found == file.remade ? State::ours : State::somebodys;
  }

  static bool names_a_process(const convention::UucpFile& file) {
    return file.content.kind == convention::UucpContent::Kind::pid;
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

  [[nodiscard]] int rename(const std::string& from, const std::string& to) const {
    return ::renameat(directory_.get(), from.c_str(), directory_.get(), to.c_str()) == 0 ? 0 : errno;
  }

  int forget_fresh(const File& file, int error) const {
    ::unlinkat(directory_.get(), file.fresh.c_str(), 0);
    return error;
  }

  // The command's new file is ready as `fresh`: it gets the name.
  int swap_in(File& file) {
    if (const int error = rename(file.fresh, file.name); error != 0) return forget_fresh(file, error);
    note_lent(file);
    return 0;
  }

  void note_lent(File& file) {
    file.lent = true;
    surroundings_.tell(path_ + "/" + file.name + " handed over");
  }

  void put_back(File& file) {
    if (!link_ours_as_fresh(file) && !make_ours_as_fresh(file)) return;
    if (rename(file.fresh, file.name) != 0) {
      forget_fresh(file, 0);
      return;
    }
    file.lent = false;
    surroundings_.tell(path_ + "/" + file.name + " taken back");
  }

  bool link_ours_as_fresh(const File& file) {
    ::unlinkat(directory_.get(), file.fresh.c_str(), 0);
    return std::ranges::any_of(files_, [&](const File& other) {
      if (look(other) != State::ours || other.remade) return false;
      return ::linkat(directory_.get(), other.name.c_str(), directory_.get(), file.fresh.c_str(), 0) == 0;
    });
  }

  bool make_ours_as_fresh(File& file) {
    const base::UniqueFd made{
        ::openat(directory_.get(), file.fresh.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644)};
    if (!made) return false;
    const std::string content = convention::uucp_content(surroundings_.command.pid);
    struct stat status{};
    if (::write(made.get(), content.data(), content.size()) != static_cast<ssize_t>(content.size()) ||
        ::fstat(made.get(), &status) != 0) {
      forget_fresh(file, 0);
      return false;
    }
    ::fchmod(made.get(), 0644);
    file.remade = device::InodeId{status.st_dev, status.st_ino};
    return true;
  }

  // The command is dead and its file is still there. A descendant that went its own way keeps what it has locked by
  // itself, and a stranger who has just taken over the dead one's file gets it back.
  void remove_left_behind(const File& file) const {
    // Through the broker the next holder may have made his before we heard of the command's end.
    const auto now = convention::read_uucp(path_ + "/" + file.name);
    const bool anothers = now && names_a_process(*now) && !now->stale && now->content.pid != surroundings_.command.pid;
    if (anothers) return;
    if (rename(file.name, file.aside) != 0) return;
    const auto found = convention::read_uucp(path_ + "/" + file.aside);
    const bool somebody_lives =
        found && names_a_process(*found) && !found->stale && found->content.pid != surroundings_.command.pid;
    if (somebody_lives) {
      [[maybe_unused]] const int given =
          ::linkat(directory_.get(), file.aside.c_str(), directory_.get(), file.name.c_str(), 0);
    }
    ::unlinkat(directory_.get(), file.aside.c_str(), 0);
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
      return Answer::error(forget_fresh(file, EACCES));
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
      if (::renameat(AT_FDCWD, source.c_str(), directory_.get(), file.name.c_str()) != 0) return Answer::error(errno);
      note_lent(file);
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
    ::unlinkat(directory_.get(), file.aside.c_str(), 0);
    if (::linkat(directory_.get(), file.name.c_str(), directory_.get(), file.aside.c_str(), 0) != 0)
      return Answer::error(errno);
    put_back(file);
    const std::string target = caller.our_path(call.path.directory, *to);
    const unsigned flags = static_cast<unsigned>(call.flags) & RENAME_NOREPLACE;
    if (::renameat2(directory_.get(), file.aside.c_str(), AT_FDCWD, target.c_str(), flags) != 0) {
      const int error = errno;
      if (rename(file.aside, file.name) == 0) note_lent(file);
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
