// SPDX-License-Identifier: MIT
// survey.hpp - what status and top show.
#pragma once

#include "claim/inquiry.hpp"
#include "observe/queue.hpp"
#include "observe/top_view.hpp"

#include <string>
#include <vector>

namespace holdfast::cli {

struct Surveyed {
  observe::Survey survey;
  observe::Broker broker = observe::Broker::is_silent;
};
[[nodiscard]] Result<Surveyed> survey_with_queues(const std::vector<std::string>& devices);

}  // namespace holdfast::cli
