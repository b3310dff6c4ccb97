// Prints what benchmark_model of each generation prints, its statistics and tables by TensorFlow's own StatsCalculator.
// See README.md for how the .txt files beside this one were made with it.

#include <algorithm>
#include <cstdint>
#include <iostream>
#include <string>
#include <vector>

#include "xla/tsl/util/stats_calculator.h"

namespace {

using Times = std::vector<int64_t>;

struct Generation {
  std::string prefix;      // what the logger puts before a line
  bool percentiles;        // since 2024
  std::string footprint;   // how the memory line begins
  bool peak;               // the monitored peak, where it was asked for
};

const Generation kFirst{"", false, "Peak memory footprint (MB):", false};
const Generation kSecond{"", false, "Memory footprint delta from the start of the tool (MB):", true};
const Generation kThird{"INFO: ", true, "Memory footprint delta from the start of the tool (MB):", false};

template <typename Statistics>
double Count(const std::string& prefix, const Times& times_us) {
  Statistics statistics;
  for (int64_t time_us : times_us) statistics.UpdateStat(time_us);
  std::cout << prefix;
  statistics.OutputToStream(&std::cout);
  std::cout << "\n\n";
  return statistics.avg();
}

double Phase(const Generation& generation, const std::string& limits, const Times& times_us) {
  std::cout << generation.prefix << "Running benchmark for at least " << limits
            << " seconds but terminate if exceeding 150 seconds.\n";
  return generation.percentiles ? Count<tsl::StatWithPercentiles<int64_t>>(generation.prefix, times_us)
                                : Count<tsl::Stat<int64_t>>(generation.prefix, times_us);
}

void Run(const Generation& generation, const Times& warmup_us, const Times& times_us, double init_mb, double overall_mb) {
  const std::string& prefix = generation.prefix;
  std::cout << prefix << "STARTING!\n" << prefix << "Num threads: [1]\n" << prefix << "Graph: [models/model.tflite]\n";
  std::cout << prefix << "Loaded model models/model.tflite\n" << prefix << "The input model file size (MB): 3.57776\n";
  std::cout << prefix << "Initialized session in 20.283ms.\n";
  const double warmup = Phase(generation, "1 iterations and at least 0.5", warmup_us);
  const double average = Phase(generation, "50 iterations and at least 1", times_us);
  std::cout << prefix << "Inference timings in us: Init: 20283, First inference: " << warmup_us.front()
            << ", Warmup (avg): " << warmup << ", Inference (avg): " << average << "\n";
  std::cout << prefix << "Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE"
            << " to the actual memory footprint of the model at runtime. Take the information at your discretion.\n";
  std::cout << prefix << generation.footprint << " init=" << init_mb << " overall=" << overall_mb << "\n";
  if (generation.peak) {
    std::cout << prefix << "Overall peak memory footprint (MB) via periodic monitoring: " << overall_mb + 4.5 << "\n";
  }
}

void Profile(bool csv) {
  tsl::StatSummarizerOptions options;
  options.show_memory = false;
  options.show_summary = csv;
  options.format_as_csv = csv;
  tsl::StatsCalculator calculator(options);
  for (int64_t run = 0; run < 3; ++run) {
    const Times times_us{1203 + run, 88, 0, 17 + run};
    const std::vector<std::string> types{"CONV_2D", "DEPTHWISE_CONV_2D", "RESHAPE", "Fully Connected (NC, F32) GEMM"};
    const std::vector<std::string> names{"[stem/conv,relu6]:0", "[block/depthwise]:1", "[flat]:2", "Delegate/FC:3"};
    int64_t total_us = 0;
    for (size_t node = 0; node < names.size(); ++node) {
      calculator.AddNodeStats(names[node], types[node], static_cast<int64_t>(node), times_us[node], 0);
      total_us += times_us[node];
    }
    calculator.UpdateRunTotalUs(total_us);
  }
  std::cout << "Operator-wise Profiling Info for Regular Benchmark Runs:\n" << calculator.GetOutputString() << "\n";
}

void Initialization() {
  tsl::StatSummarizerOptions options;
  options.show_memory = false;
  tsl::StatsCalculator calculator(options);
  calculator.AddNodeStats("ModifyGraphWithDelegate/0", "ModifyGraphWithDelegate", 0, 1356, 512 * 1024);
  calculator.AddNodeStats("AllocateTensors/0", "AllocateTensors", 1, 12, 0);
  calculator.UpdateRunTotalUs(1368);
  std::cout << "Profiling Info for Benchmark Initialization:\n" << calculator.GetOutputString() << "\n";
}

}  // namespace

int main(int count, char** arguments) {
  const std::string wanted = count > 1 ? arguments[1] : "";
  const Times warmup_us{1401, 1093, 1044};
  const Times times_us{1000, 1089, 1012, 1084, 1031, 1003, 1071, 1044, 1039, 1084};
  if (wanted == "first") {
    Run(kFirst, warmup_us, times_us, 4.92969, 138.809);
  } else if (wanted == "second") {
    Run(kSecond, warmup_us, times_us, 2.4375, 20.543);
  } else if (wanted == "third") {
    Run(kThird, warmup_us, times_us, 54.2852, 73.4102);
  } else if (wanted == "slow") {  // above a million µs averages turn scientific, and a phase of one run has none
    Run(kThird, {1357602}, {1249964, 1240143, 1238588, 1252566}, 6.36328, 109.832);
  } else if (wanted == "same") {
    Run(kSecond, {7, 7, 7}, {7, 7, 7, 7}, 1.25, 2.5);
  } else if (wanted == "same_percentiles") {
    Run(kThird, {7, 7, 7}, {7, 7, 7, 7}, 1.25, 2.5);
  } else if (wanted == "profile" || wanted == "profile_csv") {
    Run(kThird, warmup_us, times_us, 54.2852, 73.4102);
    Initialization();
    Profile(wanted == "profile_csv");
  } else {
    std::cerr << "usage: stats_samples first|second|third|slow|same|same_percentiles|profile|profile_csv\n";
    return 2;
  }
  return 0;
}
