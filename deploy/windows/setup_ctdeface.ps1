<#
.SYNOPSIS
Sets ctdeface up in .venv: pinned versions and the CPU build of PyTorch. Run it once, and again after every update.

.EXAMPLE
.\deploy\windows\setup_ctdeface.ps1

.EXAMPLE
.\deploy\windows\setup_ctdeface.ps1 -Python C:\Python312\python.exe
#>
[CmdletBinding()]
param(
    # The Python to make .venv with, 3.11 or newer; found by itself otherwise.
    [string]$Python = ""
)

Set-StrictMode -Version Latest
$ErrorActionPreference = "Stop"
$Root = Split-Path -Parent (Split-Path -Parent $PSScriptRoot)

function Test-Python([string[]]$Command) {
    if (-not (Get-Command $Command[0] -ErrorAction SilentlyContinue)) { return $false }
    $ErrorActionPreference = "Continue" # what a missing version says on standard error is no reason to stop
    $Rest = @($Command | Select-Object -Skip 1)
    & $Command[0] @Rest -c "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))" 2>$null
    return $LASTEXITCODE -eq 0
}

$Candidates = @(@("py", "-3.13"), @("py", "-3.12"), @("py", "-3.11"), @("py", "-3"), @("python"), @("python3"))
if ($Python -ne "") { $Candidates = @(, @($Python)) }
$Found = $null
foreach ($Candidate in $Candidates) {
    if (Test-Python $Candidate) { $Found = $Candidate; break }
}
if ($null -eq $Found) {
    Write-Host "ctdeface: needs Python 3.11 or newer, 64 bit, and found none: install it from python.org or name it with -Python"
    exit 78
}

$Arguments = @($Found | Select-Object -Skip 1) + @((Join-Path $Root "deploy\setup_venv.py"))
& $Found[0] @Arguments
if ($LASTEXITCODE -ne 0) { exit $LASTEXITCODE }
& (Join-Path $Root ".venv\Scripts\ctdeface.exe") --version
if ($LASTEXITCODE -ne 0) { exit $LASTEXITCODE }
Write-Host "Setup complete. Next: .\deploy\windows\run_ctdeface_batch.ps1 -DicomRootIn .\dicom_input -DicomRootOut .\dicom_output"
exit 0
