# Install qrun for this user on Windows. The same steps as scripts/install.sh, thin; it has not run on Windows yet
# (docs/install.md). qrun starts no engine on Windows so far: its line of error says so, and WSL is the way.
#
#   powershell -ExecutionPolicy Bypass -File scripts\install.ps1 [-Version V] [-NoEngine] [-Build] [-AllowCpuEngine]
#   powershell -ExecutionPolicy Bypass -File scripts\install.ps1 -Uninstall
param(
    [string] $Version = '',
    [switch] $NoEngine,
    [switch] $Build,
    [switch] $AllowCpuEngine,
    [switch] $Uninstall
)
$ErrorActionPreference = 'Stop'

$Package = 'qrun-llm'
# The folders that qrun itself uses (platformdirs' rules), and where uv puts commands.
$Data = if ($env:QRUN_DATA_DIR) { $env:QRUN_DATA_DIR } else { Join-Path $env:LOCALAPPDATA 'qrun' }
$Bin = if ($env:XDG_BIN_HOME) { $env:XDG_BIN_HOME } else { Join-Path $env:USERPROFILE '.local\bin' }
$Tool = Join-Path $Data 'tool'
$Command = Join-Path $Bin 'qrun.cmd'

function Stop-Installation([string] $Line, [int] $Code = 1) {
    [Console]::Error.WriteLine("install.ps1: error: $Line")
    exit $Code
}

function Find-Spec {
    if ($Version) { return "$Package==$Version" }
    if ($env:QRUN_SPEC) { return $env:QRUN_SPEC }
    if ($PSScriptRoot) {
        $root = Split-Path -Parent $PSScriptRoot
        $project = Join-Path $root 'pyproject.toml'
        if ((Test-Path $project) -and (Select-String -Quiet -Path $project -Pattern "^name = `"$Package`"`$")) { return $root }
    }
    return $Package
}

# The first Python 3.11 or newer, as the words that start it.
function Find-Python {
    $ErrorActionPreference = 'Continue' # Windows PowerShell 5 makes an exception of what a program says on stderr
    $check = 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))'
    $candidates = @(@('py', '-3'), @('py', '-3.13'), @('py', '-3.12'), @('py', '-3.11'), @('python'))
    if ($env:QRUN_PYTHON) { $candidates = @(, @($env:QRUN_PYTHON)) }
    foreach ($words in $candidates) {
        if (-not (Get-Command $words[0] -ErrorAction SilentlyContinue)) { continue }
        $rest = @($words | Select-Object -Skip 1)
        & $words[0] @rest -I -c $check *> $null
        if ($LASTEXITCODE -eq 0) { return , $words }
    }
    Stop-Installation 'no Python 3.11 or newer was found: install one (winget install Python.Python.3.13), or uv (winget install astral-sh.uv).'
}

function Install-ByUv([string] $Spec) {
    Write-Output "Installing $Spec by uv"
    $env:UV_TOOL_BIN_DIR = $Bin
    & uv tool install --quiet --force --upgrade --reinstall-package $Package --python '>=3.11' $Spec
    if ($LASTEXITCODE -ne 0) { Stop-Installation "uv could not install $Spec (see above)." }
    if (Test-Path $Command) { Remove-Item -Force $Command }
}

# An environment counts from the moment the command names it; what was half-made is cleared by the next run.
function Install-InVenv([string] $Spec) {
    $words = Find-Python
    $rest = @($words | Select-Object -Skip 1)
    $venv = Join-Path $Tool ('venv-' + [guid]::NewGuid().ToString('N'))
    Write-Output "Installing $Spec into an environment of its own"
    & $words[0] @rest -I -m venv $venv
    if ($LASTEXITCODE -ne 0) { Stop-Installation "no environment could be made in $venv (see above)." }
    & (Join-Path $venv 'Scripts\python.exe') -I -m pip --no-input --disable-pip-version-check --quiet install $Spec
    if ($LASTEXITCODE -ne 0) { Stop-Installation "pip could not install $Spec (see above)." }
    Set-Content -Encoding Ascii -Path "$Command.new" -Value "@`"$venv\Scripts\qrun.exe`" %*"
    Move-Item -Force "$Command.new" $Command
    Get-ChildItem $Tool -Directory | Where-Object { $_.FullName -ne $venv } |
        ForEach-Object { Remove-Item -Recurse -Force -ErrorAction SilentlyContinue $_.FullName }
}

function Find-Command {
    foreach ($name in 'qrun.cmd', 'qrun.exe') {
        $path = Join-Path $Bin $name
        if (Test-Path $path) { return $path }
    }
    Stop-Installation "no qrun was put into $Bin."
}

function Remove-Qrun {
    $ErrorActionPreference = 'Continue' # as in Find-Python
    $removed = $false
    if (Get-Command uv -ErrorAction SilentlyContinue) {
        & uv tool uninstall $Package *> $null
        if ($LASTEXITCODE -eq 0) { $removed = $true }
    }
    # Of a folder that QRUN_*_DIR names only what is ours; the platform's own is named qrun and is ours whole.
    $paths = @($Command)
    if ($env:QRUN_DATA_DIR) { $paths += 'engines', 'pins', 'stored', 'tool' | ForEach-Object { Join-Path $Data $_ } }
    if ($env:QRUN_CACHE_DIR) { $paths += 'engine-loads', 'hub', 'wheels' | ForEach-Object { Join-Path $env:QRUN_CACHE_DIR $_ } }
    if ($env:QRUN_STATE_DIR) {
        $paths += 'bandwidth.json', 'crash.log', 'engines', 'learned', 'logs' | ForEach-Object {
            Join-Path $env:QRUN_STATE_DIR $_
        }
    }
    $paths += Join-Path $env:LOCALAPPDATA 'qrun'
    foreach ($path in $paths) {
        if (Test-Path $path) {
            Remove-Item -Recurse -Force -ErrorAction Stop $path
            $removed = $true
        }
    }
    if ($removed) { Write-Output 'qrun is removed.' } else { Write-Output 'qrun is not installed here: nothing was removed.' }
    Write-Output 'Models in the Hugging Face cache stay: other tools share them.'
}

if ($Uninstall) {
    Remove-Qrun
    exit 0
}
New-Item -ItemType Directory -Force $Bin, $Tool | Out-Null
$Spec = Find-Spec
if (Get-Command uv -ErrorAction SilentlyContinue) { Install-ByUv $Spec } else { Install-InVenv $Spec }
$Qrun = Find-Command
& $Qrun hardware
if ($LASTEXITCODE -ne 0) { exit $LASTEXITCODE }
$Code = 0
if (-not $NoEngine) {
    $Options = @()
    if ($Build) { $Options += '--build' }
    if ($AllowCpuEngine) { $Options += '--allow-cpu-engine' }
    & $Qrun engines install llamacpp --yes @Options
    $Code = $LASTEXITCODE
}
Write-Output "qrun is installed: $Qrun"
if (($env:Path -split ';') -notcontains $Bin) {
    Write-Output "$Bin is not on PATH. Type once: [Environment]::SetEnvironmentVariable('Path', `"$Bin;`" + [Environment]::GetEnvironmentVariable('Path', 'User'), 'User')"
}
exit $Code
