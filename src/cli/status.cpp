// SPDX-License-Identifier: MIT
// status.cpp - `holdfast status`: observe's survey, printed; with the broker's queues where it answers.
#include "cli/command.hpp"
#include "cli/survey.hpp"
#include "observe/render.hpp"

namespace holdfast::cli {

Result<Surveyed> survey_with_queues(const std::vector<std::string>& devices) {
  auto survey = observe::survey(devices);
  if (!survey) return std::unexpected{survey.error()};
  Surveyed surveyed{std::move(*survey), observe::Broker::is_silent};
  std::vector<wire::DeviceName> names;
  if (!devices.empty())
    for (const observe::DeviceUse& device : surveyed.survey.devices) names.push_back(claiming::wire_name(device.node));
  if (const auto statuses = claiming::broker_status(names)) {
    surveyed.broker = observe::Broker::answers;
    observe::add_queues(surveyed.survey, *statuses,
                        devices.empty() ? observe::Devices::all : observe::Devices::those_there);
  }
  return surveyed;
}

int status_command(const CommandLine& line) {
  const auto surveyed = survey_with_queues(line.operands);
  if (!surveyed) return fail(surveyed.error());
  print(line.has(kJson) ? observe::to_json(surveyed->survey)
                        : observe::to_table(surveyed->survey, std::chrono::system_clock::now()));
  return 0;
}

}  // namespace holdfast::cli
